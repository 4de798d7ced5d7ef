# The lab's commands. `make report` and `make test` need Linux or macOS, Python 3.11 or later, and make; no more.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)

# Processes that run tests: they wait for servers half of the time, so one more than there are cores.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# Parameters of `make report`, by the names that the course used; empty leaves the default of notebooks/read_scaling.ipynb.
USERS    ?=
VUS      ?=
DURATION ?=
PARAMS   := $(if $(USERS),-p users=$(USERS)) $(if $(VUS),-p vus=$(VUS)) $(if $(DURATION),-p duration_s=$(DURATION))

.PHONY: help report docker-report lab unit test check bench sample clean install install-dev

help:
	@echo "make report   measure, and write one HTML file   (USERS=1000000 VUS=1000 DURATION=300 is the original experiment)"
	@echo "make docker-report   the same in containers; needs Docker with Compose"
	@echo "make lab      JupyterLab on this machine only, on your copies of the notebooks; prints its address with the token"
	@echo "make unit     the tests that need no server and less than ten seconds each, in a minute"
	@echo "make test     all tests, on real servers: most of them side by side, then alone what measures time"
	@echo "make check    ruff, mypy, import contracts, notebook rules"
	@echo "make bench    labkit's load generator beside pgbench and other clients"
	@echo "make sample NAME=failover   record a small run for data/sample; data/README.md lists them"
	@echo "make clean    stop the clusters, delete them, .venv and caches; runs in data/runs stay"

report: install
	$(BIN)/labkit run read-scaling $(PARAMS)

docker-report: install
	$(BIN)/labkit run read-scaling -p provider=docker $(PARAMS)

lab: install
	$(BIN)/labkit lab

unit: install-dev
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m 'not alone and not slow' tests/unit tests/notebooks/test_rules.py

# The tests marked `alone` run even if others have failed; the exit code is that of the first failure.
test: install-dev
	@failed=0; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m 'not alone' || failed=$$?; \
	$(BIN)/python -m pytest -m alone || failed=$$(($$failed ? $$failed : $$?)); \
	exit $$failed

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/notebooks/test_rules.py

bench: install-dev
	$(BIN)/python -m benchmarks.load

# NAME is that of a file in configs/experiments/sample; INSTEAD the id of the sample that it takes the place of.
sample: install-dev
	$(BIN)/python -m benchmarks.samples $(NAME) $(if $(INSTEAD),--instead $(INSTEAD))

clean:
	@if [ -x $(BIN)/labkit ]; then $(BIN)/labkit down --all --purge; fi
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "labkit needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(if $(UV),$(UV) venv --quiet --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV))

INSTALL = $(if $(UV),VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet,$(BIN)/python -m pip install --quiet --disable-pip-version-check) -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev,bench,distributed]'
	@touch $@ $(VENV)/.installed
