# Two commands do everything, set-up included:
#   make demo   the page, with the built-in model
#   make test   lint, types and all tests
# By hand, on x86-64 Linux, 45 minutes of one core:
#   make fuzz   200,000 bad vector files, then atheris for FUZZ_SECONDS; findings go to runs/fuzz
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
FUZZ_SECONDS ?= 1800

.PHONY: demo test check fuzz soak clean

demo: $(VENV)/demo.stamp
	$(BIN)/python app.py

test: check $(VENV)/chromium.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# 300 rounds in one server: memory, folders, pace, and every file decoded again in new processes. Some minutes.
soak: $(VENV)/dev.stamp
	SOAK_ROUNDS=300 $(BIN)/python -m pytest -s tests/test_service.py

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet -e '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --count 200000 --out runs/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --out runs/fuzz

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and $(PYTHON) is not there. Install it, or give another: make PYTHON=python3"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing. Run: apt-get install -y python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/demo.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

# The browser test drives Debian's chromium. Root installs it here; anyone else is told the one command.
$(VENV)/chromium.stamp: | $(BIN)/python
	@command -v chromium >/dev/null || [ "$$(id -u)" -ne 0 ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }
	@command -v chromium >/dev/null || { echo "The browser test needs chromium. Run: sudo apt-get update && sudo apt-get install -y chromium"; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
