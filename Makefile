# The front door. Every target makes the virtual environment in .venv itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install demo study test test-slow test-apache simulate chaos lint audit docs bench test-compose
.PHONY: secrets lock pin image wheels release clean

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

KEEP_BYTECODE = PYTHONDONTWRITEBYTECODE=# else each of the processes compiles all tests again, wherever that variable is set
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)# half of the time a test waits for its servers
test: $(INSTALLED) ## the tests, on embedded Kafka and Redis (and on a real Kafka where KAFKA_HOME names one)
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

test-slow: $(INSTALLED) ## what `make test` leaves out because it takes long
	$(KEEP_BYTECODE) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal -m slow

test-apache: $(INSTALLED) ## the tests of Kafka's readers and writers, with the Apache Kafka of KAFKA_HOME as the embedded broker
	$(KEEP_BYTECODE) $(BIN)/python -m pytest --apache -n $(WORKERS) --maxprocesses 4 --dist worksteal tests/stream

N ?= 100000
FIRST ?= 0
simulate: $(INSTALLED) ## N schedules of the stream in a simulated Kafka, from seed FIRST on: make simulate N=1000000
	$(BIN)/python -m tests.simulation $(N) $(FIRST)

SEED ?= 1
chaos: $(INSTALLED) ## kill -9 and outages, drawn by SEED, and what was lost: make chaos SEED=2
	$(BIN)/python -m tests.chaos $(SEED)

# What can hold a secret that somebody has written: neither event files and digests nor what a benchmark has printed.
SCANNED = git ls-files | grep -vE '^(fixtures/|release/locks/|release/secrets\.json$$|docs/study/|benchmarks/results/)|\.png$$'
lint: $(INSTALLED) ## ruff, mypy --strict, the contracts of the rooms (import-linter), a scan for secrets, and what audit tells
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy
	@cp release/secrets.json .venv/secrets.json # the hook rewrites its baseline where an entry has gone from its file
	$(SCANNED) | xargs -d '\n' -P 2 -n 150 $(BIN)/detect-secrets-hook --baseline .venv/secrets.json \
	  || { echo "Where nothing above is a secret: make secrets, then look at git diff release/secrets.json"; false; }
	$(BIN)/python release/audit.py --lenient

secrets: $(INSTALLED) ## takes what lint holds for secrets, and is none, into release/secrets.json
	$(SCANNED) | xargs -d '\n' $(BIN)/detect-secrets scan --slim > release/secrets.json

audit: $(INSTALLED) ## fails where a locked library has a known vulnerability; without a network it tells what was known
	$(BIN)/python release/audit.py

lock: $(INSTALLED) ## the newest libraries that pyproject.toml allows into release/locks, with the digests of their files
	$(BIN)/python release/lock.py $(TORCH)

pin: ## the foreign images of Dockerfile and docker-compose.yml by digest; needs Docker and their registries
	$(PYTHON) release/pin_images.py

GRAFT_VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image: ## the images graft-scorer and graft, their sizes, and their lists of parts in dist/; needs Docker
	$(PYTHON) release/build_images.py $(GRAFT_VERSION)

wheels: $(INSTALLED) ## the wheels of graft and its laboratory in dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . ./lab

release: ## sets the version, closes the changelog's [Unreleased], commits and tags: make release VERSION=1.2.0
	$(PYTHON) release/release.py $(VERSION)

docs: $(INSTALLED) ## the pages that are generated: docs/configuration.md, docs/grid.md, docs/troubleshooting.md, docs/schemas
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/messages.py
	$(BIN)/python docs/schemas/generate.py

bench: $(INSTALLED) ## what is measured, each with its numbers on standard output
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[full]' -e './lab[bench]'
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done
	@set -e; for benchmark in learning serving; do echo "== $$benchmark"; $(BIN)/python -m benchmarks.$$benchmark; done

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
