"""Writes a folder ready to push as a Hugging Face Space, and pushes it.

python -m cramdemo space DIR [--hardware zero] [--push USER/NAME]

The README's front matter and requirements.txt are the only sources: for other hardware than a CPU they are changed
here, not written twice.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from httpx2 import TransportError
from huggingface_hub import HfApi, SpaceCard, SpaceHardware, SpaceInfo
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from cramdemo import __version__
from cramdemo.catalogue import MODELS
from cramdemo.errors import ConfigError, CramError

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = "requirements.txt"
SEAL = "# Written by `python -m cramdemo space`. SHA-256 of what it wrote: "
CACHES = {"__pycache__", ".gradio"}  # what the app leaves in its folder when it runs there
LOGIN_SCOPES = ("read-repos", "gated-repos")


@dataclass(frozen=True)
class Flavour:
    """What a kind of hardware asks of a Space.

    Attributes:
        hardware: the hub's name of it.
        torch: lines of requirements.txt; `{pin}` is the repository's own version.
        python: version, or None for the README's.
        most_parameters: of a model that it is good for.
    """

    hardware: SpaceHardware
    torch: tuple[str, ...]
    python: str | None = None
    most_parameters: float = math.inf


FLAVOURS = {
    "cpu": Flavour(  # the default index has the CUDA build, which is gigabytes larger
        SpaceHardware.CPU_BASIC,
        ("--extra-index-url https://download.pytorch.org/whl/cpu", "torch=={pin}+cpu"),
        most_parameters=500e6,
    ),
    "gpu": Flavour(SpaceHardware.L4X1, ("torch=={pin}",)),
    # the newest that ZeroGPU listed in August 2026; a version with a suffix it refuses, and a CPU build crashes there
    "zero": Flavour(SpaceHardware.ZERO_A10G, ("torch==2.11.0",), python="3.12.12"),
}


def write_space(folder: Path, hardware: str = "cpu", *, title: str | None = None, login: bool = False) -> list[Path]:
    """Write everything that a Space needs, and nothing else.

    Args:
        folder: new, empty, or as this function left it: then it is replaced. A folder in which anything was changed
            or added since is refused.
        hardware: a name in `FLAVOURS`.
        title: of the Space; None for the README's.
        login: whether the hub offers visitors to log in, for gated models.

    Returns:
        The files that were written.

    Raises:
        ConfigError: unknown hardware, no title, a folder that may not be written to, or no checkout to write from.
        OSError: the folder cannot be written.
    """
    files = _contents(flavour_of(hardware), title, login)
    _check_target(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def flavour_of(hardware: str) -> Flavour:
    """What a kind of hardware asks for.

    Raises:
        ConfigError: there is no such kind.
    """
    if hardware not in FLAVOURS:
        raise ConfigError(f"hardware is {hardware!r}; choose from {', '.join(FLAVOURS)}.")
    return FLAVOURS[hardware]


def _contents(flavour: Flavour, title: str | None, login: bool) -> dict[str, bytes]:
    """Each file's bytes by its path in the Space; requirements.txt, which seals them, comes last."""
    if not (ROOT / "pyproject.toml").is_file():
        raise ConfigError(
            "A Space is written from a checkout of the cramdemo repository, and this is not one. "
            "Clone the repository and run the command there."
        )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted(_copied(readme))}
    files["README.md"] = _readme(readme, flavour, title, login).encode("utf-8")
    files[REQUIREMENTS] = _requirements(flavour, login).encode("utf-8")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[REQUIREMENTS] = _seal(digests) + files[REQUIREMENTS]
    return files


def _copied(readme: str) -> Iterator[Path]:
    """Files that go into the Space as they are: code, the model, samples, tables, and what the README shows."""
    yield from (ROOT / "app.py", ROOT / "LICENSE")
    yield from (ROOT / "cramdemo").rglob("*.py")
    for folder in (ROOT / "assets").iterdir():
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    yield from (ROOT / target for target in set(re.findall(r"\]\((assets/[^/)#]+)\)", readme)))


def _readme(readme: str, flavour: Flavour, title: str | None, login: bool) -> str:
    """The README with its front matter changed for the hardware."""
    if title is not None and not title.strip():
        raise ConfigError("The title is empty. Give --title some words, or leave it out.")
    card = SpaceCard(readme)
    card.data["title"] = title or card.data["title"]
    card.data["suggested_hardware"] = flavour.hardware.value
    card.data["python_version"] = flavour.python or card.data["python_version"]
    card.data["models"] = _models(flavour, login)
    if login:
        card.data["hf_oauth"] = True
        card.data["hf_oauth_scopes"] = list(LOGIN_SCOPES)
    return str(card)


def _models(flavour: Flavour, login: bool) -> list[str]:
    """Ids of the models that a visitor may load there."""
    return [
        entry.name
        for entry in MODELS.values()
        if not entry.local and entry.parameters <= flavour.most_parameters and (login or not entry.gated)
    ]


def _requirements(flavour: Flavour, login: bool) -> str:
    """requirements.txt for the hardware.

    The platform brings its own `spaces`, so no version is named; gradio keeps the front matter's.
    """
    lines: list[str] = []
    for line in (ROOT / REQUIREMENTS).read_text(encoding="utf-8").splitlines():
        package, _, pin = line.partition("==")
        if package == "torch":
            lines += [torch.format(pin=pin) for torch in flavour.torch]
        elif package == "spaces":
            lines.append(package)
        elif package.startswith("gradio[") and login:
            lines.append(line.replace("]", ",oauth]"))
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _seal(digests: Mapping[str, str]) -> bytes:
    """The first line of requirements.txt: it tells a folder that is as we left it from one that somebody changed."""
    listed = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return f"{SEAL}{hashlib.sha256(listed.encode()).hexdigest()}\n".encode()


def _check_target(folder: Path) -> None:
    name = folder.absolute().name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{name!r} is a file. Give a new or empty folder for the Space.")
    if folder.is_dir() and any(folder.iterdir()) and not _is_as_written(folder):
        raise ConfigError(
            f"The folder {name!r} is not empty, and not as this command left it. Give a new or empty one, "
            "so that nothing of yours is lost."
        )


def _is_as_written(folder: Path) -> bool:
    """Whether this program wrote the folder and nothing was changed or added since, caches apart."""
    requirements = folder / REQUIREMENTS
    if not requirements.is_file():
        return False
    with requirements.open("rb") as file:
        seal, rest = file.readline(), file.read()
    if not seal.startswith(SEAL.encode()):
        return False
    found = [path for path in folder.rglob("*") if not CACHES & set(path.relative_to(folder).parts)]
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in found if not path.is_dir()}
    digests[REQUIREMENTS] = hashlib.sha256(rest).hexdigest()
    return seal == _seal(digests)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_name(name: str) -> None:
    """Whether a Space can have this name.

    Raises:
        ConfigError: it is not USER/NAME as the hub has them.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        owner = ""
    else:
        owner = name.rpartition("/")[0]
    if not owner:
        raise ConfigError(f"{name[:100]!r} is no name for a Space. Give the user or organisation too: USER/NAME.")


def push_space(folder: Path, name: str, hardware: str = "cpu", *, private: bool = False) -> str:
    """Upload a folder that `write_space` wrote, as a new Space or as the next version of one of ours.

    Args:
        folder: what the Space is to hold; files that it does not hold are removed from the Space.
        name: USER/NAME.
        hardware: a name in `FLAVOURS`; asked for unless it is the CPU, which a Space has by itself.
        private: a new Space is, whatever its owner's default; one that is there stays as it is.

    Returns:
        The Space's address.

    Raises:
        ConfigError: the name cannot be one, or there is no such hardware.
        CramError: the name is taken by something else, or the hub refuses or cannot be reached.
    """
    flavour = flavour_of(hardware)
    check_name(name)
    api = HfApi(library_name="cramdemo", library_version=__version__)
    wanted = flavour.hardware if flavour.hardware != SpaceHardware.CPU_BASIC else None
    with _told_in_a_sentence(name, flavour):
        found = _find(api, name)
        if found is None:
            api.create_repo(name, repo_type="space", space_sdk="gradio", space_hardware=wanted, private=private or None)
        else:
            _check_ours(found, name)
        message = f"cramdemo {__version__}"
        api.upload_folder(
            repo_id=name, repo_type="space", folder_path=folder, commit_message=message, delete_patterns="*"
        )
        if found is not None and wanted:  # after the upload: what was there may not run on it
            api.request_space_hardware(name, wanted)
    return f"{api.endpoint}/spaces/{name}"


def _find(api: HfApi, name: str) -> SpaceInfo | None:
    try:
        return api.space_info(name)
    except RepositoryNotFoundError:  # or private and not for us, as creating it will tell
        return None


def _check_ours(found: SpaceInfo, name: str) -> None:
    """Whether an upload, which removes other files, takes nothing from anybody."""
    files = {sibling.rfilename for sibling in found.siblings or []}
    fresh = files <= {"README.md", ".gitattributes"}  # as the hub's own form makes one
    if found.sdk not in (None, "gradio") or not (fresh or "cramdemo/space.py" in files):
        raise CramError(f"The Space {name} is there already and holds something else. Choose another name.")


@contextmanager
def _told_in_a_sentence(name: str, flavour: Flavour) -> Iterator[None]:
    """The hub's refusals and the network's failures, for users' eyes."""
    try:
        yield
    except HfHubHTTPError as error:
        raise CramError(_refusal(error.response.status_code, name, flavour)) from error
    except (TransportError, ConnectionError, RuntimeError) as error:  # the last is hf_xet's, in an upload
        raise CramError(
            "The hub cannot be reached, or the connection broke. Check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, and run the command again."
        ) from error
    except ValueError as error:  # the hub looks at the README's front matter before it takes the folder
        if not isinstance(error.__cause__, HfHubHTTPError):
            raise
        raise CramError("The hub does not accept the README's front matter. Try another --title.") from error


def _refusal(status: int, name: str, flavour: Flavour) -> str:
    owner = name.partition("/")[0]
    sentences = {
        401: "The hub knows no token of yours. Run `hf auth login`, or set HF_TOKEN to a token that may write.",
        402: f"The hub asks for a paid plan or credit to run a Space of {owner} on {flavour.hardware.value}. "
        "Get one, or choose other hardware: --hardware.",
        403: f"Your token may not write to {owner}'s Spaces. Use one that may.",
        409: f"The name {name} is taken on the hub. Choose another.",
        429: "The hub has had too many requests from you. Wait some minutes and run the command again.",
    }
    return sentences.get(status, f"The hub answered with status {status}. Run the command again later.")
