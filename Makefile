# Ramal's short commands; `make` lists them. A fresh Debian 12 with make, python3 and python3-venv is enough.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
RUNS := $(or $(wildcard $(VENV)/.installed),$(VENV)/.editable)
BENCH ?= ../shared/bench
ROUNDS ?= 3
FUZZ_CASES ?= 100000
JOBS ?= 2
PACKAGES := sipcore events runtime edge authsvc registrar locator cdr console ramal
SOURCES := pyproject.toml setup.py $(shell find $(PACKAGES) -type f -not -path '*/__pycache__/*' -not -path 'console/web/*')
ENGINE ?= $(shell command -v docker || command -v podman)
IMAGE ?= localhost/ramal:dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## the virtual environment .venv of the fastest Python here (or PYTHON=…), its core compiled where gcc is; the command is .venv/bin/ramal

up: $(RUNS) ## everything in one process, kept in ./ramal-data: alice and bob can register
	@$(BIN)/ramal up

stack: $(VENV)/.dev ## the distributed system on loopback: EDGES=3 REGISTRARS=2 LOCATORS=2 USERS=1000 make stack
	@$(BIN)/python -m ramal.containers || $(MAKE) --no-print-directory packages
	@$(BIN)/ramal stack

check: style ## style, types and imports; whether docs/events says what the code says, and readers can follow
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m ramal.published --check
	$(BIN)/python -m ramal.reference --check

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

events: $(VENV)/.dev ## docs/events anew from the code: JSON Schemas, AsyncAPI, the table of all records
	$(BIN)/python -m ramal.published

settings: $(VENV)/.dev ## docs/configuration.md anew from the code: every setting, its default and its meaning
	$(BIN)/python -m ramal.reference

test: packages style ## every check and test, on real Kafka, MariaDB and OpenLDAP (apt-get as root where packages are missing)
	@.ci/mysql9 || echo "The tests on MySQL 9 are skipped."
	@# The slow checks go on beside the tests and give way to them: what they say comes in the end, if it is bad.
	@# What tests side by side have spoiled for each other on a busy machine passes alone; what fails alone fails.
	@mkdir -p .run; nice make --no-print-directory check >.run/check.log 2>&1 & checked=$$!; failed=0; \
		echo "$(BIN)/python -m pytest --numprocesses $(JOBS); beside it make check, into .run/check.log"; \
		$(BIN)/python -m pytest --numprocesses $(JOBS) || { echo "Those that failed once more, one after the other:"; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none; } || failed=1; \
		wait $$checked || { cat .run/check.log; failed=1; }; exit $$failed

screenshots: $(VENV)/.dev ## every page of the console as it looks, in both languages, wide and narrow, light and dark: .run/screenshots
	RAMAL_SCREENSHOTS=all $(BIN)/python -m pytest -q tests/e2e/operators/test_console.py -k test_every_page
	@echo "$(CURDIR)/.run/screenshots"

test-compiled: $(VENV)/.dev .run/compiled/.built ## the unit tests and the fuzz tests of the core with the core compiled (needs gcc)
	@# Not those that look at the lines which run, or hold their time against the interpreter's.
	PYTHONPATH=$(CURDIR)/.run/compiled $(BIN)/python -P -c 'import sipcore.message as core; assert core.__file__.endswith(".so"), core'
	PYTHONPATH=$(CURDIR)/.run/compiled:$(CURDIR) $(BIN)/python -P -m pytest --numprocesses $(JOBS) tests/unit tests/fuzz \
		--deselect tests/unit/edge/test_walk.py --ignore tests/fuzz/test_fuzz_costs.py

.run/compiled/.built: $(SOURCES) | $(VENV)/bin/python
	rm -rf .run/compiled
	RAMAL_COMPILE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .run/compiled .
	@# What is not compiled is tested where it stands: it looks for documents beside it.
	rm -rf $(addprefix .run/compiled/,$(filter-out sipcore edge,$(PACKAGES)))
	@touch $@

chaos: packages $(VENV)/.dev ## kills and stops real processes under load, in full (the tests have a short form)
	RAMAL_CHAOS=full $(BIN)/python -m pytest tests/chaos

e2e: packages $(VENV)/.dev ## whole systems with their thousands of calls and registrations in full (the tests have a short form)
	RAMAL_E2E=full $(BIN)/python -m pytest tests/e2e

fuzz: $(VENV)/.dev ## damaged and random SIP: FUZZ_CASES=100000
	RAMAL_FUZZ_CASES=$(FUZZ_CASES) $(BIN)/python -m pytest tests/fuzz

bench: install packages bench-packages ## registrations and calls beside Kamailio: BENCH=../shared/bench ROUNDS=3
	@# Two runs: the kit's register@100 says CSeq 1 again, which after the other two is out of order.
	$(BIN)/python bench/kit.py $(BENCH) run kamailio:DB_MODE=3 bench/ramal.json bench/ramal.json:CHALLENGE_CALLS=true \
		--workloads register,refresh,call --rounds $(ROUNDS)
	$(BIN)/python bench/kit.py $(BENCH) run kamailio:DB_MODE=3 bench/ramal.json bench/ramal.json:CHALLENGE_CALLS=true \
		--workloads register@100,call@50 --count 1500 --rounds $(ROUNDS)

bench-curves: install packages bench-packages ## CPU per operation at each load beside Kamailio, as docs/curves.svg: ROUNDS=1 takes 8 min
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python bench/curves.py $(BENCH) --rounds $(ROUNDS) --svg docs/curves.svg $(CURVES)

bench-restore: install packages ## the registrar's memory per binding, and its restart with 100,000 AORs
	$(BIN)/python bench/restore.py

bench-growth: install packages ## CPU of a registration among 10^4, 10^5 and 10^6 others, restore, look-ups: 3 min
	$(BIN)/python bench/growth.py $(GROWTH)

bench-storm: install packages ## 100,000 phones come back at once after an outage of the edges: STORM='--phones 10000'
	$(BIN)/python bench/storm.py $(STORM)

bench-floods: install ## how long a phone waits while a stranger floods the edge
	$(BIN)/python bench/floods.py

bench-records: $(VENV)/.dev packages .run/compiled/.built ## what records add to a call: processor time by process, and the time of set-up
	$(BIN)/python bench/records.py

bench-core: $(RUNS) .run/compiled/.built ## processor time of the edge's core for a REGISTER and a call: AGAINST=REVISION by turns with it
	$(BIN)/python bench/core.py $(if $(AGAINST),--against $(AGAINST))

image: ## the container image: IMAGE=localhost/ramal:dev ENGINE=podman
	@# BUILDAH_FORMAT: podman's own format of images has no health check.
	BUILDAH_FORMAT=docker $(ENGINE) build --tag $(IMAGE) --build-arg REVISION=$$(git rev-parse HEAD) $(BUILD_OPTIONS) .
.PHONY: image

collector: ## an OpenTelemetry collector for the tests of `ramal trace`, in ~/.cache/ramal-otel (needs Go; once, 3 CPU-minutes)
	@tests/collector/build
.PHONY: collector

release: $(VENV)/.dev ## dist/: sdist and wheel of the version in pyproject.toml; the wheel is tried in a fresh environment
	rm -rf dist build
	$(BIN)/python -m build --outdir dist .
	RAMAL_DIST=dist $(BIN)/python -m pytest -q tests/integration/ramal/test_release.py
	@ls -l dist
.PHONY: release

page: ## the softphone's page console/static from its sources console/web (needs Node.js and npm)
	cd console/web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

packages: ## the Debian packages of the real servers, phones and browser (apt-get as root)
	@# Debian's npm would not go with a Node.js that came from elsewhere with its own.
	@.ci/packages default-jre-headless maven mariadb-server slapd ldap-utils sip-tester baresip-core \
		chromium rtpengine-daemon prometheus iproute2 curl kamailio kamailio-mysql-modules $$(command -v npm >/dev/null || echo npm)

mysql9: ## MySQL 9 for the tests, unpacked from Debian sid into .run/mysql-9 (installs nothing)
	@.ci/mysql9

bench-packages:
	@.ci/packages kamailio kamailio-mysql-modules kamailio-ldap-modules mariadb-client

clean: ## everything that make made: .venv, .run, caches (never ramal-data)
	rm -rf $(VENV) .run build dist console/web/node_modules *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@python=$$(.ci/python); echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV)

# .venv has Ramal either as it was installed, its core compiled, or editable: the sources as they are.
$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing Ramal into $(VENV): a minute or two where gcc is, for the core is compiled then."
	@$(BIN)/python -m pip install --disable-pip-version-check --verbose . >$(VENV)/install.log 2>&1 \
		|| { tail -n 30 $(VENV)/install.log >&2; exit 1; }
	@sed -n 's/^ *ramal: //p' $(VENV)/install.log
	@rm -f $(VENV)/.editable && touch $@

$(VENV)/.editable: pyproject.toml | $(VENV)/bin/python
	RAMAL_COMPILE=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@rm -f $(VENV)/.installed && touch $@

$(VENV)/.dev: $(VENV)/.editable
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

.PHONY: help install up stack check style events settings test test-compiled chaos e2e fuzz bench bench-curves bench-restore bench-storm bench-growth bench-floods bench-records bench-core page packages mysql9 bench-packages clean

kube: packages $(VENV)/.dev ## a real Kubernetes of two nodes on this machine, and what must hold there (root, Go 1.26; first run: 20 min)
	tests/kube/run

kube-secrets: ## fills the placeholders in k8s/overlays/*/secrets; changes nothing that is filled
	@k8s/make-secrets

.PHONY: kube kube-secrets

secrets: ## .env and secrets/ for `docker compose up`; changes nothing that is there
	@deploy/make-secrets

test-containers: $(VENV)/.dev ## the image, compose.yaml and testcontainers on a real engine (installs podman, as root)
	tests/containers/run

.PHONY: secrets test-containers
