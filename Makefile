# Everything a person types here; `make help` lists it. Needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
PYTEST_ARGS ?= -n auto -q
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
SEED ?=
CHAOS_SECONDS ?= 600

.PHONY: help up test test-firestore lint gen bench chaos chaos-sessions soak-events clients lock clean install

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

up: $(STAMPS)/runtime ## start the whole platform here; Ctrl-C stops it
	@exec $(BIN)/bas up

test: $(STAMPS)/dev ## run the whole test suite
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-firestore: $(STAMPS)/dev ## conformance and end-to-end on a real Firestore: see docs/firestore.md
	@if [ -z "$$FIRESTORE_EMULATOR_HOST$$FIRESTORE_TEST_DATABASE" ]; then \
	  echo "Say where: FIRESTORE_EMULATOR_HOST=host:port for an emulator, or FIRESTORE_TEST_DATABASE=project/database for a" \
	    "database of its own, which is emptied, with credentials and firestore.indexes.json deployed" >&2; exit 2; fi
	@$(BIN)/python -m pytest -q -k firestore tests/conformance/store/test_firestore.py tests/e2e

lint: $(STAMPS)/dev ## ruff, mypy --strict, import rules, buf lint and breaking, generated code up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/buf.py lint
	@$(BIN)/python tools/buf.py breaking
	@$(BIN)/python tools/gen.py --check

gen: $(STAMPS)/dev ## rebuild gen/ from protos/
	@$(BIN)/python tools/gen.py

bench: $(STAMPS)/dev ## measure every budget, beside the baselines
	@$(BIN)/python -m bench

chaos: $(STAMPS)/dev ## break the platform for ten minutes (CHAOS_SECONDS), and see that it keeps its promises; SEED repeats
	@$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

chaos-sessions: $(STAMPS)/dev ## a million operations on sessions under faults: no promise broken
	@$(BIN)/python -m tests.integration.sessions.long_run 1000000

soak-events: $(STAMPS)/dev ## a thousand readers of events while processes are killed: nothing lost, doubled or out of order
	@$(BIN)/python -m tests.integration.events.soak

clients: ## clients of event streams in Node.js, for tests; needs npm
	@npm ci --prefix tests/clients --silent

install: $(STAMPS)/dev ## make .venv with everything that test, lint, gen and bench need

lock: $(STAMPS)/python ## choose the newest versions anew and write requirements/*.lock
	@echo "resolving requirements/*.lock"
	@$(BIN)/python tools/lock.py

clean: ## remove .venv and what tools left behind; the data in .bas stays
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not: say PYTHON=/path/to/python3.11 make ..." >&2; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv module (on Debian: python3-venv)" >&2; exit 2; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: $(STAMPS)/python requirements/runtime.lock pyproject.toml
	@echo "installing requirements/runtime.lock into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/runtime.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/python requirements/dev.lock pyproject.toml
	@echo "installing requirements/dev.lock into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(STAMPS)/runtime
