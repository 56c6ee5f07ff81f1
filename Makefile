# make help lists the targets; the first of them on a fresh clone also makes .venv (Python 3.10 to 3.13 and make are all it needs).
PYTHON ?= python3
BIN := .venv/bin
# --no-compile: Python compiles what it imports when it first does, a third of what there is
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PYTEST := $(BIN)/python -m pytest -rs -n 2 --dist loadgroup
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test test-system check sweep report results bench sync dashboard notebooks docs lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2}'

.venv/core: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else f"Python 3.10 to 3.13 is needed, {sys.version.split()[0]} found: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --editable .
	@touch $@

.venv/all: .venv/core requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	@touch $@

.venv/docs: .venv/core requirements-docs.lock
	$(PIP) -r requirements-docs.lock
	@touch $@

install: .venv/all  ## make .venv with all extras but docs and trackio, and the tools of the tests (make train installs the core alone)

train: .venv/core  ## the main job: EWC on five rotated-MNIST tasks (ARGS="method=mas seed=1" changes it)
	$(BIN)/python train.py $(ARGS)

test: .venv/all  ## the laws, and one of each test of the whole system; says what it skipped and why
	$(PYTEST) -m "smoke or not system" $(ARGS)

test-system: .venv/all .venv/docs  ## the rest: kills, SLURM, several processes, W&B, browser, notebooks, site, full grids
	$(PYTEST) -m "system and not smoke" $(ARGS)

check: .venv/all  ## ruff, mypy and make test: what the GitHub workflow runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

sweep: .venv/all  ## the penalties and both bounds, three seeds, two runs at a time, then the table (ARGS="method=ewc,l2 seed=0" changes it)
	$(BIN)/python train.py --multirun $(or $(ARGS),experiment=methods)
	$(BIN)/python scripts/table.py $(if $(ARGS),runs,runs/methods)

report: .venv/core  ## a page of the runs below runs/, with figures and tables (ARGS=runs/methods: of some)
	$(BIN)/python scripts/report.py $(or $(ARGS),runs)

results: .venv/core  ## the pages of results, ablations and studies from the run folders, or without them from docs/data
	$(BIN)/python scripts/results.py
	$(BIN)/python scripts/ablations.py
	$(BIN)/python scripts/homework.py

bench: .venv/core  ## ours against a floor loop in plain PyTorch, one thread, a quarter of an hour (ARGS=--quick: less data)
	$(BIN)/python scripts/benchmark.py $(ARGS)

sync: .venv/core  ## upload to W&B what lies in run folders and is not there yet (ARGS=runs/methods: of some)
	$(BIN)/python scripts/sync.py $(or $(ARGS),runs)

dashboard: .venv/all  ## make the W&B workspace, or bring it up to date (ARGS="--project lifelong --entity us")
	$(BIN)/python scripts/dashboard.py $(ARGS)

notebooks: .venv/all  ## run the notebooks and write their outputs into them
	$(BIN)/python scripts/notebooks.py $(ARGS)

docs: .venv/docs  ## write the documentation site to site/: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build $(ARGS)

# Versions stay as they are unless ARGS="--upgrade" or "--upgrade-package NAME". CUDA packages stay out: torch's own wheel
# asks for those it needs.
LOCKING := --universal --python-version 3.10 --no-annotate --no-header --quiet
CUDA := ^(nvidia-|cuda-|triton)
lock: .venv/all  ## write requirements.lock (the core), requirements-dev.lock and requirements-docs.lock from pyproject.toml
	$(PIP) uv
	cat requirements.lock requirements-dev.lock requirements-docs.lock | grep -v '^-r' | sort -u > .venv/all.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs $(LOCKING) --output-file .venv/all.lock $(ARGS) > /dev/null
	$(BIN)/uv pip compile pyproject.toml --constraints .venv/all.lock $(LOCKING) > .venv/core.lock
	grep -vE '$(CUDA)' .venv/core.lock > requirements.lock
	set -e; for extra in dev docs; do \
	  $(BIN)/uv pip compile pyproject.toml --extra $$extra --constraints .venv/all.lock $(LOCKING) > .venv/$$extra.lock; \
	  (echo '-r requirements.lock'; grep -vE '$(CUDA)' .venv/$$extra.lock | grep -vxFf requirements.lock) \
	  > requirements-$$extra.lock; done

clean:  ## remove caches and .venv; runs/ stays
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
