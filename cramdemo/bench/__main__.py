"""What `proof` and `speed` run in a new process, as JSON.

proof FOLDER MODEL: the text of every vector file in it, by file name. memory REQUEST: what a few steps take.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cramdemo.bench.proof import decoded_texts
from cramdemo.bench.speed import memory_use

if __name__ == "__main__":
    if sys.argv[1] == "memory":
        print(json.dumps(memory_use(sys.argv[2])))
    else:
        print(json.dumps(decoded_texts(Path(sys.argv[2]), sys.argv[3])))
