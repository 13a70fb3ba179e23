"""The web page: the only place that imports gradio. Everything it shows is computed by the modules below it."""
