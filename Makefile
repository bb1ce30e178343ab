# dropless: `make` prints this help.
PYTHON ?= python3
ACCEPT ?= ../shared/accept
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help test lint accept quickstart clean

help:  ## Print this help.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: pyproject.toml  # Everything is installed once; afterwards the commands work offline.
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[postgres]' --group test --group lint
	touch $@

test: .venv/.ready  ## Set up the environment if need be, and run all tests.
	$(BIN)/python -m pytest -n 2 tests

lint: .venv/.ready  ## Check style and types.
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests

accept: .venv/.ready  ## Run the acceptance cases in ACCEPT against the installed command.
	$(BIN)/python $(ACCEPT)/accept.py --cli $(CURDIR)/$(BIN)/dropless

clean:  ## Remove the environment and caches.
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache
