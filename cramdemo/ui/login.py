"""Login with Hugging Face, where the Space's owner has switched it on: a visitor's own token opens gated models."""

from __future__ import annotations

import os
import time
from typing import Any

import gradio as gr


def login_is_on() -> bool:
    """Whether this is a Space with `hf_oauth: true`."""
    return bool(os.environ.get("OAUTH_CLIENT_ID"))


def visitor_token(request: gr.Request) -> str | None:
    """The token of a visitor who is logged in; None for everybody else.

    Read from the signed session cookie rather than asked for as an argument, for which gradio would demand a login
    of the machine itself wherever there is no Space.
    """
    if not login_is_on():
        return None
    session: Any = getattr(getattr(request, "request", None), "session", None) or {}
    info = session.get("oauth_info") or {}
    return info.get("access_token") if float(info.get("expires_at") or 0) > time.time() else None
