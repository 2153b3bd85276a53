# `make demo` and `make test` do all the set-up themselves; a second call finds it done.
#
#   PYTHON=python3.12      the interpreter to build .venv with (default: the first of 3.11, 3.12, 3.13 that is there)
#   PYTEST_ARGS="-k store" more arguments for pytest

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint study-pointgoal1 clean

BIN := .venv/bin
READY := .venv/.ready

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" bash scripts/setup.sh
	@touch $@

setup: $(READY) ## system packages, .venv, Python packages, a trial of the renderer
	@echo "set up: everything is in .venv"

demo: $(READY) ## the whole road on one task, from the log to the report, in runs/demo
	$(BIN)/fosp demo --out runs/demo

# As many processes as cores, but four at most: each holds a renderer and PyTorch.
test: $(READY) ## run the tests
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 $(PYTEST_ARGS)

# pyright fetches its own program through npm the first time; where it cannot, the other check still counts.
lint: $(READY) ## style (ruff) and types (pyright)
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	if $(BIN)/pyright --version >/dev/null 2>&1; then $(BIN)/pyright --pythonpath $(BIN)/python || status=1; \
	else echo "pyright could not be fetched (it needs Node.js and npm): types were not checked"; fi; \
	exit $$status

study-pointgoal1: $(READY) ## the three-seed table of SafetyPointGoal1 (hours)
	$(BIN)/fosp study pointgoal1 --out runs/study-pointgoal1

clean: ## remove .venv and the caches; what was learned in runs/ stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find fosp tests -name __pycache__ -type d -prune -exec rm -rf {} +
