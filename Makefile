# Each target works alone on a machine with Python 3.11 or later, and again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

SIZE ?= full

CASES ?= 5000

.PHONY: quickstart test lint docs bench fuzz

quickstart: $(VENV)/.installed
	$(BIN)/python -m mining experiment=quickstart
	$(BIN)/python -m analysis.gallery experiment=quickstart

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . docs/_build/html

fuzz: $(VENV)/.installed-dev
	MINING_FUZZ=$(CASES) $(BIN)/python -m pytest tests/test_fuzz_*.py

bench: $(VENV)/.installed-bench
	$(BIN)/python tests/benchmarks --size $(SIZE)

# An installation is made anew only when pyproject.toml changed.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed
