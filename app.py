"""Entry point of the web page and of the Hugging Face Space: python app.py."""

import os
from contextlib import suppress

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read on import: the page asks nothing of the network
if "SPACE_ID" not in os.environ:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
with suppress(ImportError):
    import spaces  # noqa: F401  # on ZeroGPU it must come before torch; elsewhere it does nothing

from cramdemo.ui.page import LAUNCH, build

demo = build()

if __name__ == "__main__":
    demo.launch(**LAUNCH)
