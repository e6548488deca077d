# make demo | test | test-all | bench | lint : each makes its own .venv when needed
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all bench lint clean

demo: $(STAMP)
	$(BIN)/prerank demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest

bench: $(STAMP)
	$(BIN)/python -m benchmarks.scoring_latency
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.accuracy

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt setup.py prerank/index/_maxsim.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache prerank/index/*.so
