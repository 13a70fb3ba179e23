"""What `proof` and `speed` run in a new process, as JSON.

FOLDER: the text of every vector file in it, by file name. memory REQUEST: what a few steps take.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cramdemo.bench.speed import memory_use
from cramdemo.decode import decode
from cramdemo.models import load_model
from cramdemo.vectors import load

if __name__ == "__main__":
    if sys.argv[1] == "memory":
        print(json.dumps(memory_use(sys.argv[2])))
    else:
        lm = load_model()
        files = sorted(Path(sys.argv[1]).glob("*.safetensors"))
        print(json.dumps({path.name: decode(lm, load(path)).text for path in files}))
