"""What `pip install .` puts on a machine: the package with its assets, able to work at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("app.py", "README.md", "LICENSE", "requirements.txt", "pyproject.toml")
PROGRAM = """
import cramdemo
from cramdemo.catalogue import MODELS, published
from cramdemo.ui.samples import read_samples
print(cramdemo.__file__)
print(published(MODELS["EleutherAI/pythia-160m"]).cramming, len(read_samples()) > 1)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network from a copy of the sources, since building leaves files among them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("cramdemo", "assets"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(ROOT / name, sources)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-build-isolation", "--no-deps", "--no-index"]
    built = subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(folder)], cwd=sources, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("cramdemo-*.whl")
    shutil.rmtree(sources)  # nothing is to be found there any more
    return found


def test_a_wheel_holds_the_package_and_its_assets_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cramdemo").rglob("*.py")}
    folders = ("cram-mini", "gallery", "paper", "samples")
    assets = {path for folder in folders for path in (ROOT / "assets" / folder).rglob("*") if path.is_file()}
    assert held == code | {f"cramdemo/{path.relative_to(ROOT).as_posix()}" for path in assets}


def test_an_installed_package_does_the_readme_s_round_trip(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "decode(lm" in block]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM + example],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    origin, facts, said = run.stdout.splitlines()
    assert origin == str(tmp_path / "site" / "cramdemo" / "__init__.py")  # not the checkout's
    assert facts == "80 True"
    assert said == "True We were tired of the sea."
