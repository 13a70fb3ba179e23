"""The report: every experiment drawn, no request to anybody, small, and a stranger's words as characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cramdemo.reproduce.report import html
from tests.browser import NEEDS_CHROMIUM
from tests.reproduce.test_table import _row

EVIL = "<img src=x onerror=alert(1)>"


def _rows(experiment: str) -> list[dict[str, Any]]:
    kinds = ("seen", "unseen") if experiment == "unseen" else ("prose", "random words")
    vectors = (1, 2) if experiment == "scaling" else (1,)
    return [
        _row(length * k, accuracy, kind=kind, num_mem=k, model=f"m{EVIL}", hidden_size=640)
        for kind in kinds
        for k in vectors
        for length, accuracy in ((8, 1.0), (16, 1.0), (32, 0.7), (32, 0.8))
    ]


@NEEDS_CHROMIUM
@pytest.mark.parametrize("experiment", ["table1", "scaling", "entropy", "unseen"])
def test_it_opens_from_a_disk_and_draws_its_figure(browser: Any, tmp_path: Path, experiment: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(
        html(experiment, _rows(experiment), "python -m cramdemo reproduce --out <b>x</b>"), encoding="utf-8"
    )
    assert file.stat().st_size < 2_500_000
    page, asked, told = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("#figure-0 .main-svg")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == [] and told == []
    assert page.locator("img[src=x], pre b").count() == 0 and EVIL in page.inner_text("table >> nth=0")
    assert page.inner_text("h1") and "accuracy over tokens 1..N-1" in page.inner_text("body")
    page.close()


def test_nothing_that_was_run_is_a_report_that_says_so() -> None:
    assert "Nothing has been run yet" in html("table1", [], "x")
