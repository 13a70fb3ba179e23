"""Files that visitors take home, each in a folder of its own with a name that nobody can guess.

They are written where gradio serves files from, and it leaves what is there where it is. What lies elsewhere it would
copy to a folder named by the content: two visitors would share a file, and whoever makes the same bytes would learn
that somebody else has. Knows no widget.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder

LIFE_SECONDS = 24 * 3600  # what ends in the night is still there in the morning
LOOK_SECONDS = 3600  # between two looks for what is too old
SECRET_BYTES = 16
_PREFIX = "cramdemo-result-"
_FOLDER = re.compile(f"{_PREFIX}[0-9a-f]{{{2 * SECRET_BYTES}}}")


def put(name: str, data: bytes) -> str:
    """Write a file for one visitor; gives its path. What is too old goes first.

    Args:
        name: what a browser calls it.
    """
    sweep()
    folder = Path(get_upload_folder()) / f"{_PREFIX}{secrets.token_hex(SECRET_BYTES)}"
    folder.mkdir(mode=0o700, parents=True)
    path = folder / name
    path.write_bytes(data)
    return str(path)


def sweep() -> None:
    """Remove the folders that are older than `LIFE_SECONDS`, those that a killed program left behind too."""
    oldest = time.time() - LIFE_SECONDS
    for folder in Path(get_upload_folder()).glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # another server's sweep was faster
            if _FOLDER.fullmatch(folder.name) and folder.lstat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
