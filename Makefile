# make demo: environment, install, main job, report.   make docs: the documentation as a site; its notebooks run.
# make wheel: the sdist, the wheel made from it, and the smallest grid from the wheel in a clean environment.
# make test: the same environment, every promise by its representatives, in minutes.   make test-all: every test, once.
# make mutations: faults planted one by one, to see whether the tests notice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

NEXT := @echo "next: . $(VENV)/bin/activate; then normwise --help"

.PHONY: demo test test-all docs wheel mutations check clean

demo: $(READY)
	$(BIN)/normwise bench --out runs/bench
	@echo "open runs/bench/report.html"
	$(NEXT)

test: $(READY) check
	$(BIN)/python -m pytest -n 2 -m "not slow"
	$(NEXT)

test-all: $(READY) check
	$(BIN)/python -m pytest -n 2

docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "open docs/_build/index.html"

wheel: $(READY)
	rm -rf dist build
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/normwise --version && bin/normwise bench --norms bn --recipes standard --schedule.epochs 1 --out smallest

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
	rm -rf $(VENV) runs build dist docs/_build docs/jupyter_execute .pytest_cache .mypy_cache .ruff_cache .hypothesis
