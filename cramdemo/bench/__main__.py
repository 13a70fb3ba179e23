"""What `proof` runs in a new process: the text of every vector file in a folder, as JSON by file name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cramdemo.decode import decode
from cramdemo.models import load_model
from cramdemo.vectors import load

if __name__ == "__main__":
    lm = load_model()
    files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
    print(json.dumps({path.name: decode(lm, load(path)).text for path in files}))
