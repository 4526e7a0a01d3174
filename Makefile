# Every command sets up what it needs: virtual environments, made anew when pyproject.toml or the pinned versions change.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell $(p) -c '' 2>/dev/null && command -v $(p))))
NEWEST_PYTHON ?= $(shell .ci/newest-python)
OLDEST_FASTAPI := $(shell sed -n 's/^dependencies = \["fastapi>=\([0-9.]*\)".*/\1/p' pyproject.toml)
BIN := .venv/bin
# Many tests mostly wait, for servers to start and to end: twice as many at a time as there are processors.
# Without it, each of thousands of processes would compile the code again.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := -m pytest -q -n $(or $(WORKERS),4) --dist loadgroup

.PHONY: help demo quick test proofs e2e check test-oldest-fastapi test-newest-python chaos bench format lock clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready  ## a real application is killed while tasks run, and loses none (20 s)
	@$(BIN)/python -m examples.demo

quick: .venv/ready  ## the core, the memory engine, and the main promises once: for every save (under a minute)
	@$(BIN)/python $(PYTEST) $(QUICK)

test: .venv/ready  ## all tests but those of `make proofs` and `make e2e`, in random order, and how much of the code they run
	rm -f .coverage .coverage.*
	$(BIN)/coverage run $(PYTEST) $(MEASURED)
	$(BIN)/python $(PYTEST) $(addprefix --ignore=,$(MEASURED) $(PROOFS) tests/e2e)
	$(BIN)/coverage combine --quiet
	@failed=; for gate in $(GATES); do \
		$(BIN)/coverage report --include="src/afterwards/$${gate%=*}" --fail-under=$${gate#*=} || failed=1; done; test -z "$$failed"

proofs: .venv/ready  ## longer tests: processes and servers that are killed, moves, shutdowns, Celery fleets (minutes)
	$(BIN)/python $(PYTEST) $(PROOFS)

e2e: .venv/ready  ## the dashboard in Chromium (minutes)
	$(BIN)/python $(PYTEST) tests/e2e

check: .venv/ready  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

# Measuring slows these tests down by half and more, whatever is measured. So only the tests that run in pytest's own
# processes are measured, and the servers that they start are not: what those run depends on when they are killed.
MEASURED = $(addprefix tests/,core engines worker face sessions functions options owners records registration schedules promises \
	telemetry dashboard dispatch celery_calls)
# The percentage that each part must reach, branches included.
GATES = core/*=100 engines/memory/*=100 engines/wakeup.py=100 engines/sqlite/*=95.5 engines/postgres/*=94.5 worker/*=92.5 web/*=95

PROOFS = $(addprefix tests/,kills move hosts shutdown differential fleet)

QUICK = tests/core tests/engines/test_memory.py tests/testing tests/promises
FASTAPI_TESTS = tests/differential tests/face tests/functions tests/owners tests/records tests/sessions tests/testing

test-oldest-fastapi: .venv-oldest/ready  ## the tests that touch FastAPI, on the oldest version supported
	.venv-oldest/bin/python $(PYTEST) $(FASTAPI_TESTS)

test-newest-python: .venv-newest/ready  ## the quick tests and the worker's, on the newest Python of this machine
	.venv-newest/bin/python $(PYTEST) $(QUICK) tests/worker tests/isolation

chaos: .venv/ready  ## 200 kills under load; ENGINE=postgres: of its server, too, and of the network; FLEET=celery+amqp, celery+redis
	$(BIN)/python -m tests.chaos --engine $(or $(ENGINE),sqlite) $(if $(FLEET),--fleet $(FLEET))

bench: .venv/ready  ## speed, as ratios measured side by side (minutes)
	$(BIN)/python -m pip install --quiet --constraint requirements-dev.txt --group bench
	$(BIN)/python -m benchmarks

format: .venv/ready  ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Theirs, not ours to pin: the newest FastAPI is tested, with whatever it brings.
UNPINNED = fastapi starlette pydantic pydantic-core typing-extensions typing-inspection annotated-types annotated-doc anyio

lock: .venv/ready  ## pin the newest versions of what tests and checks use
	$(BIN)/python -m pip install --quiet uv
	{ sed -n '/^#/p' requirements-dev.txt; $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --group test --group check \
		$(addprefix --no-emit-package ,$(UNPINNED)) pyproject.toml; } > requirements-dev.new
	mv requirements-dev.new requirements-dev.txt

clean:  ## remove what these commands made
	rm -rf .venv .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

.venv/ready: pyproject.toml requirements-dev.txt
	$(call environment,$(PYTHON),)

.venv-oldest/ready: pyproject.toml requirements-dev.txt
	$(call environment,$(PYTHON),"fastapi==$(OLDEST_FASTAPI)")

.venv-newest/ready: pyproject.toml requirements-dev.txt
	$(call environment,$(NEWEST_PYTHON),)

# $(call environment,PYTHON,REQUIREMENTS): make the virtual environment that $@ is in.
define environment
	$(1) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable . --requirement requirements-dev.txt $(2)
	@touch $@
endef
