"""A visitor's token is read where login is on, and only while it is valid."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from cramdemo.ui.login import visitor_token


def _request(**info: Any) -> Any:
    return SimpleNamespace(request=SimpleNamespace(session={"oauth_info": info} if info else {}))


def test_a_visitor_who_is_logged_in_has_a_token_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTH_CLIENT_ID", "a client")
    now = time.time()
    assert visitor_token(_request(access_token="theirs", expires_at=now + 60)) == "theirs"
    assert visitor_token(_request(access_token="theirs", expires_at=now - 1)) is None
    assert visitor_token(_request()) is None


def test_without_login_no_session_is_looked_at() -> None:
    assert visitor_token(_request(access_token="theirs", expires_at=time.time() + 60)) is None
    assert visitor_token(SimpleNamespace()) is None
