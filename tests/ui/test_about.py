"""What the About tab says is computed from what it speaks of, and is complete."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.settings import Settings
from cramdemo.ui import about
from cramdemo.ui.about import BIBTEX, CSS, GLOSSARY, PYTHON, about_html, limits, picture
from cramdemo.ui.theme import CSS as THEME

SVG = "{http://www.w3.org/2000/svg}"


def _limits(settings: Settings, queue_limit: int | None = 1) -> dict[str, str]:
    return dict(limits(settings, queue_limit))


def test_limits_are_those_of_the_server() -> None:
    found = _limits(Settings(max_mem=7, max_steps=1234, max_seconds=55, queue=3))
    assert found["memory tokens, K"].startswith("1 to 7;")
    assert found["steps of a run"] == "1,234"
    assert found["time of a run"].startswith("55 seconds")
    assert found["waiting"] == "1 run at a time; 3 may wait"
    assert f"{MODELS[BUILT_IN].context:,}" in found["length of a text"]


def test_without_a_time_limit_it_says_so_and_a_lent_gpu_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _limits(Settings())["time of a run"] == "no limit"
    monkeypatch.setattr(about, "ON_ZERO", True)
    found = _limits(Settings(), queue_limit=None)
    assert found["time of a run"].startswith("75 seconds")
    assert found["waiting"].startswith("each run has a GPU of its own")


def test_the_tab_says_whether_mcp_is_on_here_and_how_long_files_are_kept() -> None:
    assert "here they are not" in about_html(Settings(), 1, 25)
    assert "gradio_api/mcp/" in about_html(Settings(mcp=True), 1, 25)
    assert "for 25 hours at most" in about_html(Settings(), 1, 25)


def test_the_picture_is_well_formed_has_a_title_and_a_description_and_no_colour_of_its_own() -> None:
    tree = ElementTree.fromstring(picture().replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))
    names = (tree.find(f"{SVG}title"), tree.find(f"{SVG}desc"))
    assert [name.get("id") for name in names if name is not None] == tree.get("aria-labelledby", "").split()
    assert not re.search(r"#[0-9a-f]{3,6}\b|fill=|stroke=", picture())
    assert not re.search(r"#[0-9a-f]{3,6}\b", CSS)


def test_every_variable_and_every_class_of_the_picture_is_styled() -> None:
    assert {name for name in re.findall(r"var\((--cd-[\w-]+)\)", CSS) if f"{name}: " not in THEME} == set()
    classes = {name for found in re.findall(r'class="([^"]+)"', picture()) for name in found.split()}
    assert {name for name in classes if f".{name} " not in CSS} == set()


def test_the_glossary_has_the_field_s_terms_once_each() -> None:
    names = [name for name, _ in GLOSSARY]
    assert len(set(names)) == len(names)
    assert {"lossless", "margin", "H_LM", "information gain", "C_H", "compression horizon"} <= set(names)


def test_bibtex_is_two_entries_with_closed_braces() -> None:
    assert BIBTEX.count("@inproceedings{") == 2
    assert BIBTEX.count("{") == BIBTEX.count("}")
    assert "2502.13063" in BIBTEX


def test_links_leave_the_page_alone_and_nothing_is_loaded() -> None:
    html = about_html(Settings(), 1, 25)
    links = re.findall(r"<a [^>]+>", html)
    assert links
    assert all('target="_blank" rel="noopener noreferrer"' in link and 'href="https://' in link for link in links)
    assert "src=" not in html and "@import" not in CSS and "url(" not in CSS


def test_the_python_example_is_the_readme_s_which_is_run_by_its_test() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    assert f"```python\n{PYTHON}```" in readme.read_text(encoding="utf-8")
