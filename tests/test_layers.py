"""The shape of the code itself: imports go one way, and what is promised never to be done is not written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cramdemo"
LAYERS = (  # a module imports from layers above its own, and within its own only what stands before it
    ("errors", "config", "settings"),
    (
        *("catalogue", "metrics", "encoder", "flops", "attention", "body", "checkpoint", "placement", "dispatch"),
        *("download", "hub", "models", "tensorfile", "metadata", "vectors", "segments"),
    ),
    ("objective", "step", "optimiser", "decode", "record", "resume", "cram"),
    (
        *(
            "passages",
            "words",
            "capacity",
            "fewest",
            "entropy",
            "storage",
            "geometry",
            "packing",
            "document",
            "gallery",
            "edit",
        ),
        *("pretrain", "bench", "race", "sweep"),
    ),
    ("plots", "reproduce"),
    ("space", "cli", "ui"),
    ("__main__",),
)
ORDER = [module for layer in LAYERS for module in layer]
MODULES = sorted(PACKAGE.rglob("*.py"))
SKIPPED = {"runs", "build", "dist", "__pycache__"}
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".js", ".css", ".html", ".yml", ".yaml", ".csv", ".svg", ""}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it; `from a import b` gives a.b."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)} has a relative import, which this test cannot follow"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_module(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _repository_files() -> list[Path]:
    def kept(path: Path) -> bool:
        parts = path.relative_to(ROOT).parts
        hidden = any(p.startswith(".") and p not in (".ci", ".github", ".gitignore") for p in parts)
        return not (hidden or SKIPPED & set(parts) or any(p.endswith(".egg-info") for p in parts))

    return [p for p in ROOT.rglob("*") if kept(p) and p.is_file()]


def test_every_module_has_a_layer() -> None:
    assert {_own_module(p) for p in MODULES} - {"__init__"} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    own = _own_module(path)
    if own == "__init__":
        above = set(ORDER[: ORDER.index("plots")])  # the public names: all but the edges
    else:
        above = set(ORDER[: ORDER.index(own)]) | {"__version__"} | ({own} if (PACKAGE / own).is_dir() else set())
    found = {name.split(".")[1] for name in _imported(path) if name.startswith("cramdemo.")}
    assert found <= above


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_only_the_page_imports_gradio(path: Path) -> None:
    tops = {name.split(".")[0] for name in _imported(path)}
    assert _own_module(path) == "ui" or not tops & {"gradio", "spaces"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_below_the_edges_prints_or_logs(path: Path) -> None:
    """What runs only when the file itself is the program (`if __name__ == ...`) is an edge too."""
    if _own_module(path) not in ("cli", "ui"):
        body = [s for s in _tree(path).body if not (isinstance(s, ast.If) and "__name__" in ast.unparse(s.test))]
        calls = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Call)]
        called = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
        assert "print" not in called
        assert "logging" not in {name.split(".")[0] for name in _imported(path)}


@pytest.mark.parametrize("path", [*MODULES, *ROOT.glob("*.py")], ids=_name)
def test_nothing_that_runs_foreign_code_is_called(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"torch.load", "eval", "exec", "compile", "os.system"}
            trusting = [k for k in node.keywords if k.arg in ("trust_remote_code", "shell", "weights_only")]
            assert all(isinstance(k.value, ast.Constant) and k.value.value is False for k in trusting)
        if isinstance(node, ast.Dict):
            keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
            values = dict(zip(keys, node.values, strict=False))
            assert ast.unparse(values.get("trust_remote_code", ast.Constant(False))) == "False"
    assert not {n.split(".")[0] for n in _imported(path)} & {"pickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(_tree(path))


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "manager", "helper", "helpers", "misc"}
    assert [_name(p) for p in _repository_files() if p.stem in drawers] == []


def test_no_file_names_a_place_on_somebody_s_machine() -> None:
    """Tests may: an error that names one is what they throw at the page."""
    places = "|".join(("home", "Users", "root", "work", "mnt", "tmp", "scratch"))
    pattern = re.compile(rf"(?<![\w.~:/)\]}}-])/(?:{places})/[\w.]|[A-Z]:\\\\?Users")
    found = {
        f"{_name(path)}: {line.strip()[:80]}"
        for path in _repository_files()
        if path.suffix in TEXT and path.stat().st_size < 1_000_000 and path.relative_to(ROOT).parts[0] != "tests"
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    }
    assert found == set()


def test_every_module_has_a_test_file_that_mirrors_it() -> None:
    mirrored = {p.stem.removeprefix("test_") for p in (ROOT / "tests").glob("test_*.py")}
    inner = {"__init__", "__main__", "bench", "sweep", "reproduce", "ui"}
    for package in ("bench", "sweep", "reproduce"):
        assert {p.stem for p in (PACKAGE / package).glob("[a-z]*.py")} <= {
            p.stem.removeprefix("test_") for p in (ROOT / "tests" / package).glob("test_*.py")
        }
    assert {_own_module(p) for p in MODULES} - inner <= mirrored
