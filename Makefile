# Every command sets up what it needs: a virtual environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(p) 2>/dev/null)))
BIN := .venv/bin
OLDEST := .venv-oldest/bin

.PHONY: help demo test check test-matrix test-oldest chaos bench format clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready  ## a real application is killed while tasks run, and loses none (20 s)
	@$(BIN)/python -m examples.demo

test: .venv/ready  ## all tests, in random order
	@set -e; for tests in $(TESTS); do echo $$tests; $(BIN)/python -m pytest -q -n 2 $$tests; done
	$(BIN)/coverage run -m pytest -q tests/core tests/engines/test_memory.py tests/worker/test_dependencies.py
	$(BIN)/coverage report

check: .venv/ready  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

# One process a folder: installations and task functions belong to a process, and those of other tests are in the way.
TESTS = $(filter-out tests/chaos tests/core tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
FASTAPI_TESTS = tests/differential tests/face tests/functions tests/sessions tests/worker tests/testing

test-matrix: test-oldest .venv/ready  ## the tests that touch FastAPI, on the oldest supported version and the newest
	@set -e; for tests in $(FASTAPI_TESTS); do echo $$tests; $(BIN)/python -m pytest -q -n 2 $$tests; done

test-oldest: .venv-oldest/ready
	@set -e; for tests in $(FASTAPI_TESTS); do echo $$tests; $(OLDEST)/python -m pytest -q -n 2 $$tests; done

chaos: .venv/ready  ## 200 kills of a server under load, with one and with two workers (minutes)
	$(BIN)/python -m tests.chaos

bench: .venv/ready  ## speed, as ratios measured side by side (minutes)
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m benchmarks

format: .venv/ready  ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what these commands made
	rm -rf .venv .venv-oldest .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable . --group test --group check
	@touch $@

.venv-oldest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install --quiet --upgrade pip
	$(OLDEST)/python -m pip install --quiet --editable . --group test "fastapi==0.121.0"
	@touch $@
