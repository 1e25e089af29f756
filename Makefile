# The front door. Every target makes the virtual environment in .venv itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install demo study test test-slow simulate chaos fuzz lint docs bench test-compose clean

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 21
	@echo "PYTHON=... names another Python (3.11 or newer); PIP_EXTRA_INDEX_URL an index with torch's CPU build."

install: $(INSTALLED) ## graft and its laboratory into .venv, with what tests and linter need

demo: $(INSTALLED) ## the whole path in one terminal; ends with report/index.html
	$(BIN)/graft demo

study: $(INSTALLED) ## the headline of docs/study.md in study/headline.json: MovieLens, or the simulated pair without a network
	test -e study/pair/graft.toml || $(BIN)/graft pair make movielens study/pair \
	  || { test $$? -eq 3 && $(BIN)/graft pair make simulated study/pair; } # 3: it could not be fetched
	test -e study/pair/teacher.onnx || $(BIN)/graft pair train-teacher study/pair
	$(BIN)/graft study study/pair --grid headline --out study

WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)# half of the time a test waits for its servers
test: $(INSTALLED) ## the tests, on embedded Kafka and Redis (and on a real Kafka where KAFKA_HOME names one)
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

test-slow: $(INSTALLED) ## what `make test` leaves out because it takes long
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal -m slow

N ?= 100000
FIRST ?= 0
simulate: $(INSTALLED) ## N schedules of the stream in a simulated Kafka, from seed FIRST on: make simulate N=1000000
	$(BIN)/python -m tests.simulation $(N) $(FIRST)

MINUTES ?= 5
SEED ?= 1
chaos: $(INSTALLED) ## kill -9 and outages for MINUTES, and what was lost: make chaos MINUTES=40 SEED=1 CHAOS="--kills 200"
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) $(CHAOS)

MESSAGES ?= 100000
fuzz: $(INSTALLED) ## MESSAGES with every poison in them through one stream process: make fuzz MESSAGES=1000000
	$(BIN)/python -m tests.chaos.fuzz --messages $(MESSAGES) --seed $(SEED)

lint: $(INSTALLED) ## ruff, mypy --strict, and the contracts of the rooms (import-linter)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(INSTALLED) ## the pages that are generated: docs/configuration.md, docs/grid.md, docs/troubleshooting.md, docs/schemas
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/messages.py
	@test ! -e docs/schemas/generate.py || $(BIN)/python docs/schemas/generate.py

bench: $(INSTALLED) ## what is measured, each with its numbers on standard output
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[full]' -e './lab[bench]'
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

test-compose: $(INSTALLED) ## docker compose up, fixtures replayed, a version published, scores answered; needs Docker
	$(BIN)/python -m pytest -m compose -s tests/compose

clean: ## removes .venv and everything generated
	rm -rf .venv build dist *.egg-info lab/build lab/*.egg-info report run study .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml lab/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: graft needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -e ./lab
	@touch $@
