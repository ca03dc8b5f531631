# scorefield: every verb of development. `make` lists them.
# Python >= 3.11 makes the environment; choose another with `make install PYTHON=python3.13`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Workers of the test run: as many as processors, and never so many that their memory hurts.
WORKERS ?= logical

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

# Two stamps, so that nothing is asked of pip until pyproject.toml or constraints.txt changes: the demo needs the package
# alone, development everything. torch goes first and alone: its exact pin decides which build is taken, before any
# dependency can ask for just any torch.
CORE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(DEV): $(CORE)
	$(PIP) install --quiet -c constraints.txt -e '.[dev,docs]'
	@touch $@

install: $(DEV) ## make .venv with everything for development

demo: $(CORE) ## train, sample, score and report on the bundled digits
	$(BIN)/scorefield demo

test: $(DEV) ## style, layers and the fast tests (under 5 minutes on 2 cores)
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo --no-cache
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile

check: test ## test, and formatting, types and the slow tests
	$(BIN)/ruff format --check
	$(BIN)/pyright
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile -m slow

docs: $(DEV) ## build the pages into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(DEV) ## measure the training step and inference against a naive network
	$(BIN)/python benchmarks/step.py

clean: ## remove what the other targets made, but not runs/
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
