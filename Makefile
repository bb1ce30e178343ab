# dropless: `make` prints this help.
PYTHON ?= python3
ACCEPT ?= ../shared/accept
BIN := .venv/bin
# A variable, because a comma would end an argument of `call`.
EXTRAS := postgres,kafka,intake,http
# One installer for both groups: uv where it can be had, else the environment's own pip.
INSTALL = if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(1); \
	else $(BIN)/python -m pip install --quiet $(1); fi

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint accept bench bench-full clean reference prove prove-loss

help:  ## Print this help.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Everything is installed once; afterwards the commands work offline. What a user needs comes first and stands alone.
.venv/.runtime: pyproject.toml constraints.txt hatch_build.py $(wildcard src/dropless/native/*.[ch])
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
		|| $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'  # 25.1 is the first that knows --group.
	$(call INSTALL,--constraint constraints.txt --editable .)
	touch $@

.venv/.ready: .venv/.runtime
	$(call INSTALL,--constraint constraints.txt --editable '.[$(EXTRAS)]' --group test)
	touch $@

.venv/.lint: .venv/.ready
	$(call INSTALL,--constraint constraints.txt --group lint)
	touch $@

quickstart: .venv/.runtime  ## Set up the environment if need be, and show the main job on generated data, killed on its way.
	@$(BIN)/python examples/quickstart/quickstart.py

test: .venv/.ready  ## Set up the environment if need be, and run all tests.
	$(BIN)/python -m pytest -n 2 tests

lint: .venv/.lint  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference: .venv/.ready  ## Write the pages of docs/reference anew from the code.
	$(BIN)/python -m dropless.cli.reference docs/reference

accept: .venv/.ready  ## Run the acceptance cases in ACCEPT, where that folder exists, against the installed command.
	@if [ -f $(ACCEPT)/accept.py ]; then $(BIN)/python $(ACCEPT)/accept.py --cli $(CURDIR)/$(BIN)/dropless; \
	else echo 'not run: there are no acceptance cases in $(ACCEPT)'; fi

BENCH ?= all
bench: .venv/.ready  ## Run small benchmarks beside hand-written scripts, a few minutes (BENCH=NAME for one).
	$(BIN)/python -m bench $(BENCH) --quick

bench-full: .venv/.ready  ## Run all benchmarks at the sizes of bench/README.md, about 20 minutes on 2 quiet cores.
	$(BIN)/python -m bench $(BENCH)

KILLS ?= 200
prove: .venv/.ready  ## Kill every pair of the matrix at least KILLS times and write docs/reference/guarantees.md, about an hour.
	cd tests && ../$(BIN)/python -m prove.matrix --kills $(KILLS)
	cd tests && ../$(BIN)/python -m prove.page

LOSSES ?= 1000
prove-loss: .venv/.ready  ## Plant LOSSES rows lost, doubled or altered and verify as many clean histories, about an hour.
	cd tests && ../$(BIN)/python -m verify.loss --trials $(LOSSES)

clean:  ## Remove the environment and caches.
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache examples/*/build
