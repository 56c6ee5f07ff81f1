# make help lists the targets; the first of them on a fresh clone also makes .venv (Python >= 3.10 and make are all it needs).
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test fast check sweep report results bench sync dashboard lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else f"Python >= 3.10 and < 3.14 is needed, {sys.version.split()[0]} found: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

install: .venv/installed  ## make .venv from the lock file

train: .venv/installed  ## the main job: EWC on five rotated-MNIST tasks (ARGS="method=mas seed=1" changes it)
	$(BIN)/python train.py $(ARGS)

test: .venv/installed  ## every test this machine can run; says what it skipped and why
	$(BIN)/python -m pytest -rs -n 2 --dist loadgroup $(ARGS)

fast: .venv/installed  ## the tests without the slow ones
	$(BIN)/python -m pytest -rs -n 2 --dist loadgroup -m "not slow and not gpu and not ddp and not slurm" $(ARGS)

check: .venv/installed  ## ruff, mypy and the tests: what the GitHub workflow runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

sweep: .venv/installed  ## every method, three seeds, two runs at a time, then the table (ARGS="method=ewc,l2 seed=0" changes it)
	$(BIN)/python train.py --multirun $(or $(ARGS),experiment=methods)
	$(BIN)/python scripts/table.py $(if $(ARGS),runs,runs/methods)

report: .venv/installed  ## a page of the runs below runs/, with figures and tables (ARGS=runs/methods: of some)
	$(BIN)/python scripts/report.py $(or $(ARGS),runs)

results: .venv/installed  ## docs/results.md and docs/ablations.md from the run folders, or without them from docs/data
	$(BIN)/python scripts/results.py
	$(BIN)/python scripts/ablations.py

bench: .venv/installed  ## ours against a floor loop in plain PyTorch, one thread, a quarter of an hour (ARGS=--quick: less data)
	$(BIN)/python scripts/benchmark.py $(ARGS)

sync: .venv/installed  ## upload to W&B what lies in run folders and is not there yet (ARGS=runs/methods: of some)
	$(BIN)/python scripts/sync.py $(or $(ARGS),runs)

dashboard: .venv/installed  ## make the W&B workspace, or bring it up to date (ARGS="--project lifelong --entity us")
	$(BIN)/python scripts/dashboard.py $(ARGS)

lock: .venv/installed  ## rewrite requirements.lock (CUDA packages stay out: torch's own wheel asks for those it needs)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --no-annotate --no-header --quiet \
	  | grep -vE '^(nvidia-|cuda-|triton)' > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove caches and .venv; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
