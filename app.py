"""Entry point of the web page and of the Hugging Face Space: python app.py."""

import os
import sys
from contextlib import suppress

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read on import: the page asks nothing of the network
with suppress(ImportError):
    import spaces  # noqa: F401  # on ZeroGPU it must come before torch; elsewhere it does nothing

from cramdemo.errors import CramError
from cramdemo.settings import server_settings
from cramdemo.ui.page import LAUNCH, build
from cramdemo.ui.shutdown import end_in_order

try:
    demo = build()
except CramError as error:  # a setting that makes no sense
    sys.exit(f"cramdemo: {error}")

if __name__ == "__main__":
    end_in_order(demo)
    demo.launch(**LAUNCH, mcp_server=server_settings().mcp)
