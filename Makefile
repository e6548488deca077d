# make demo | test | test-all | bench | lint : each makes its own .venv when needed
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all bench lint clean

demo: $(STAMP)
	$(BIN)/prerank demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(STAMP)
	$(BIN)/python -m benchmarks.scoring_latency
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.accuracy

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# An install that was killed leaves half packages behind, on which pip itself fails: then the environment is made anew.
$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard prerank/*/_*.c prerank/*/_*.h)
	test ! -e $(VENV)/.installing || rm -rf $(VENV)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $(VENV)/.installing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	mv $(VENV)/.installing $(STAMP)

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache prerank/*/*.so
