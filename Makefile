# Everything a newcomer needs; needs only git, make and Python >= 3.11.
#   make demo       set up and run the main job on examples/data
#   make test       set up and run the test suite of the base install
#   make test-all   that, then every extra with its tests and the slow ones
#   make slurm      Slurm for its tests, where this user may install it (test-all does)
#   make chromium a browser for the viewer's tests, where this user may install it (test-all does)
#   make search     the property tests with new random cases
#   make check      format, lint and types
#   make docs       write the generated pages anew
#   make clean      remove the environment and what tools left behind

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --dist loadgroup
DEMO := runs/demo

.PHONY: setup setup-all check test test-all search slurm chromium demo docs clean

setup: $(VENV)/dev.stamp
setup-all: $(VENV)/all.stamp

$(VENV)/base.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; install one or say 'make PYTHON=/path/to/python3'"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/all.stamp: $(VENV)/dev.stamp
	@$(PIP) --editable '.[dev,corpus,embed,gs,hf,lm-eval,ray,s3,serving,train,view]'
	@touch $@

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

test: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow and not extra"

test-all: test slurm chromium
	$(MAKE) setup-all
	$(PYTEST) -m "slow or extra"

search: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow and not extra" --hypothesis-profile search $$(grep -rl "from hypothesis" tests)

slurm:
	@( for p in munged slurmctld slurmd sbatch; do PATH="$$PATH:/usr/sbin" command -v $$p >/dev/null || exit 1; done ) || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends slurm-wlm munge faketime >/dev/null; } || \
	echo "no Slurm here and no way to install it: its tests are skipped (Debian: apt install slurm-wlm munge faketime)"

chromium:
	@command -v chromium >/dev/null || \
	{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } || \
	echo "no chromium here and no way to install it: the viewer's browser tests are skipped (Debian: apt install chromium)"

demo: $(VENV)/base.stamp
	@$(BIN)/fineinstructions run recipes/quickstart.yaml --out $(DEMO)

docs: $(VENV)/dev.stamp
	$(BIN)/python -m fineinstructions.cli.reference docs

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
