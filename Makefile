# Every target sets up what it needs: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-dev
DEMO_STAMP := $(VENV)/.installed-demo

.PHONY: demo test fault-matrix crash-matrix stall-matrix stop-matrix system-test hw-rehearsal lint bench bench-runs bench-air bench-strangers bench-commits coverage clean

demo: $(DEMO_STAMP)
	$(BIN)/fastprovd demo

# On another Python: make test PYTHON=python3.13 VENV=.venv-3.13
# One more process than processors: a third of the time tests wait, for clocks that are real. They
# and the programs that tests start share the bytecode of what they import.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n $$(($$(nproc) + 1)) --dist worksteal $(PYTEST_OPTIONS)

# Every fault in every phase, for both hosts; `make test` runs a sixth of it.
fault-matrix: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal --fault-matrix --fault-table=fault-matrix.txt tests/end_to_end/test_fault_matrix.py
	cat fault-matrix.txt

# Every stall with every loss, size and host; `make test` runs a diagonal of it without 100 boards.
stall-matrix: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal --stall-matrix --stall-table=stall-matrix.txt tests/end_to_end/test_stall_matrix.py
	cat stall-matrix.txt

# A gateway killed at every step and at 2,000 instants; `make test` runs a part.
crash-matrix: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal --crash-matrix --crash-table=crash-matrix.txt tests/end_to_end/test_crashes.py tests/end_to_end/test_sigkill.py
	cat crash-matrix.txt

# 500 real programs, told to end at random instants; `make test` does so in virtual time. Most of a
# program's life is waiting, so more of them than processors. STOP_SEED: of the first chain of ten.
STOP_SEED ?= 1
stop-matrix: $(STAMP)
	$(BIN)/python -m pytest -q -n 4 --dist worksteal -o faulthandler_timeout=600 --stop-matrix --stop-seed=$(STOP_SEED) --stop-table=stop-matrix.txt tests/end_to_end/test_stops.py
	cat stop-matrix.txt

# In a virtual machine with real bluetoothd and kernel: SUITE=bookworm (BlueZ 5.66) or trixie (5.82).
SUITE ?= bookworm
system-test: | $(VENV)/bin/python
	SYSTEM_PYTHON=$(BIN)/python tests/system/run.sh $(SUITE) $(PYTEST_OPTIONS)

# hw-tests on emulated boards, at the speed of real ones.
hw-rehearsal: $(STAMP)
	$(BIN)/python -m pytest hw-tests -q -rs --rehearsal 10 --soak-rounds 2 --require-bench $(PYTEST_OPTIONS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.bench

# Forty minutes on two processors; BENCH_OPTIONS="--quick", or numbers of boards.
bench-runs: $(STAMP)
	$(BIN)/python -m tests.bench.runs $(BENCH_OPTIONS)

# The emulator held against the firmware, 12 to 100 boards with and without collisions.
bench-air: $(STAMP)
	$(BIN)/python -m tests.bench.air $(BENCH_OPTIONS)

bench-commits: $(STAMP)
	$(BIN)/python -m tests.bench.commits $(BENCH_OPTIONS)

bench-strangers: $(STAMP)
	$(BIN)/python -m tests.bench.strangers

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run --parallel-mode -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='fastprovd/mesh/*,fastprovd/campaign/*' --fail-under=95

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: run 'sudo apt-get install python3 python3-venv' first" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: fastprovd needs Python 3.11 or newer, this is $$($(PYTHON) -V): install it or say 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: python3-venv is missing: run 'sudo apt-get install python3-venv' first" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DEMO_STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(DEMO_STAMP)

clean:
	rm -rf .venv .venv-* .system-test hw-logs fault-matrix.txt crash-matrix.txt stall-matrix.txt stop-matrix.txt .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
