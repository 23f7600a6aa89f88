# One command a chore. Every target sets up `.venv` first; that takes no time when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
UV_VERSION := 0.13.9

.PHONY: setup demo test lint serve loadtest evaluate study bench simulate chaos lock clean

setup: $(STAMP)

$(STAMP): requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## start the service, search for a prompt over HTTP, save demo/index.html, stop everything
	$(BIN)/python -m sitsearch.service.demo --out demo

test: setup lint  ## everything that must hold
	$(BIN)/python -m pytest

lint: setup  ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: setup  ## the whole service on this machine, until Ctrl-C
	$(BIN)/sitsearch serve

loadtest: setup  ## Locust against a fresh service; writes loadtest/out/report.md
	$(BIN)/python -m loadtest.run

evaluate: setup  ## quality of the bundled generator, and what search adds
	$(BIN)/python -m sitsearch.workers.studies.evaluate --out docs/quality

study: setup  ## every algorithm at eight budgets on two tasks, into docs/study; STUDY="--device cuda --processes 8"
	$(BIN)/python -m sitsearch.workers.studies.comparison --out docs/study $(STUDY)

bench: setup  ## the engine against its ceiling, loops, mixed load, the whole service; tables and plot in docs/benchmarks
	$(BIN)/python -m bench

simulate: setup  ## the whole service on virtual time under random faults; SIMULATE="--schedules 100000"
	$(BIN)/python -m tests.simulation $(SIMULATE)
	COURSES=200 $(BIN)/python -m pytest -q --timeout 600 tests/simulation/test_store_machine.py

chaos: setup  ## a service whose processes are killed and frozen; CHAOS="--minutes 30"
	$(BIN)/python -m tests.chaos $(CHAOS)

lock: setup  ## pin the dependencies anew, with hashes and without addresses
	for extra in workers dev; do $(BIN)/uv pip compile --quiet pyproject.toml --extra $$extra --universal \
		--python-version 3.11 --generate-hashes --no-header -o requirements/$$extra.lock; done
	$(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
		-o requirements/gateway.lock

clean:  ## remove what the other targets made
	rm -rf $(VENV) demo data loadtest/out *.egg-info
