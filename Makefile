# `make tune` and `make test` do all their own set-up: a .venv with the versions in constraints.txt.
#
#   PYTHON      interpreter to build .venv from; default: the first Python >= 3.11 found
#   EXTRAS      extras of fa4gen to install; default: dev,peers (the tests emulate the peers)
#   TORCH_ARGS  more arguments for `pip install torch`, e.g. --index-url with PyTorch's CPU index,
#               which spares a machine without a GPU a download of some gigabytes
#   ARGS        more arguments for the tool itself: make tune ARGS='--budget 10m', make test ARGS='-k space'
#   JOBS        test processes; default: 2

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-by-make
EXTRAS ?= dev,peers
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help tune test lint format doctor clean
.DEFAULT_GOAL := help

help:
	@echo "make tune    tune the workload 'quick': timed on the GPU, or emulated and modelled where there is none"
	@echo "make test    run the tests (those that need a GPU are skipped where there is none)"
	@echo "make lint    ruff and mypy over everything"
	@echo "make format  let ruff format and fix what it can"
	@echo "make doctor  what fa4gen found on this machine, and what is missing"
	@echo "make clean   remove .venv and the tools' caches"

tune: $(STAMP)
	@$(BIN)/fa4gen tune --workload quick --budget 150s $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

doctor: $(STAMP)
	@$(BIN)/fa4gen doctor

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# torch goes first and alone, so that its build (CPU or CUDA) is chosen once, by TORCH_ARGS.
$(STAMP): pyproject.toml constraints.txt
	@python=; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        python=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "fa4gen needs Python 3.11 or newer; found none. Name one: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	if [ ! -x $(BIN)/pip ]; then $$python -m venv $(VENV); fi
	@echo "Installing fa4gen into $(VENV), once; this takes a few minutes."
	@$(PIP) install -q -c constraints.txt torch $(TORCH_ARGS)
	@$(PIP) install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
