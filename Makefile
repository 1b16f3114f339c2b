# make demo: environment, install, main job, report.
# make test: the same environment, every promise by its representatives, in minutes.   make test-all: every test, once.
# make mutations: faults planted one by one, to see whether the tests notice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all mutations check clean

demo: $(READY)
	$(BIN)/normwise bench --out runs/bench
	@echo "open runs/bench/report.html"

test: $(READY) check
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(READY) check
	$(BIN)/python -m pytest -n 2

mutations: $(READY)
	$(BIN)/python tests/mutations.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("normwise needs Python 3.11 or newer; run: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache .hypothesis
