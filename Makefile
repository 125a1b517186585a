# `make run` starts the gateway, and `make test` runs its tests. Both install what they need into .venv.
PYTHON ?= python3
DEV := .venv/dev
RUN := .venv/run
BENCH := .venv/bench
TOOLS := .venv/tools

# uv and Node.js bring certificates of their own. The system's may include that of a company's proxy.
export UV_SYSTEM_CERTS := true
NODE_CERTS := NODE_OPTIONS=--use-system-ca

.PHONY: run test lint types format fuzz clients chaos attacks bench lock sbom clean

run: $(RUN)/installed
	$(RUN)/bin/python run.py

test: $(DEV)/installed
	-@$(MAKE) --no-print-directory $(TOOLS)/installed  # without them the tests that use them are skipped
	$(DEV)/bin/tox

# Parts of make test, and what mends most findings of make lint.
lint: $(DEV)/installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/lint-imports --no-cache --config pyproject.toml

types: $(DEV)/installed
	$(DEV)/bin/mypy

format: $(DEV)/installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

# Fuzz a running gateway, and report what was sent and tried:
# make fuzz [URL=http://127.0.0.1:8000] [CASES=1000] [KEY=pgw_test_...] [REPORTS=build/fuzz]
URL ?= http://127.0.0.1:8000
CASES ?= 1000
REPORTS ?= build/fuzz
fuzz: $(DEV)/installed
	PYTHONPATH=. SCHEMATHESIS_HOOKS=tests/contract/fuzz_coverage.py \
	  $(DEV)/bin/schemathesis run $(URL)/api/v1/openapi.json --max-examples $(CASES) \
	  --report-junit-path $(REPORTS)/junit.xml --report-har-path $(REPORTS)/requests.har \
	  --coverage-report-html-path $(REPORTS)/coverage.html \
	  $(if $(KEY),--header 'Authorization: Bearer $(KEY)')

# Generate clients from the contract that a gateway serves: make clients [URL=http://127.0.0.1:8000]
clients: $(DEV)/installed $(TOOLS)/installed
	$(DEV)/bin/python -W ignore -m tests.clients $(URL) build/clients

# Kill gateways and the database under load, then compare the bank's ledger with the payments:
# make chaos [SECONDS=60] [SEED=1] [STORE=postgresql|sqlite]
SECONDS ?= 60
SEED ?= 1
STORE ?= postgresql
chaos: $(DEV)/installed
	$(DEV)/bin/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --store $(STORE)

# Attack a gateway as one caller, and measure what is left of another merchant's payments: make attacks [SECONDS=15]
attacks: SECONDS = 15
attacks: $(DEV)/installed
	$(DEV)/bin/python -W ignore -m tests.chaos.attacks --seconds $(SECONDS)

# Compare the cost of a payment with that in other stacks. It takes half an hour, and needs wrk and nginx's echo module:
# apt-get install wrk libnginx-mod-http-echo
bench: $(BENCH)/installed
	$(BENCH)/bin/python -m bench

# Pin the newest version of every package. `make run` installs with the hashes of requirements.lock: pip refuses hashes
# in constraints.
lock: $(DEV)/installed
	@echo '# Every package that is installed, for all Pythons and platforms. Written by `make lock`; do not edit.' > constraints.new
	sed '/^-c/d' requirements.txt requirements-dev.txt bench/requirements.txt tests/tools/requirements.txt | grep -v '^-r' | \
	  $(DEV)/bin/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --quiet - >> constraints.new
	mv constraints.new constraints.txt
	@echo '# The packages of requirements.txt and of constraints.txt with hashes. Written by `make lock`; do not edit.' > lock.new
	$(DEV)/bin/uv pip compile requirements.txt --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --quiet >> lock.new
	mv lock.new requirements.lock

# List what the gateway is installed with: a bill of materials (CycloneDX) in sbom.json, the licences in docs/licences.md.
sbom: $(DEV)/installed $(TOOLS)/installed $(RUN)/installed
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --output-file sbom.json $(RUN)/bin/python
	{ sed '/^|/,$$d' docs/licences.md && \
	  $(DEV)/bin/pip-licenses --python $(RUN)/bin/python --format markdown --no-version --with-urls; } > licences.new
	mv licences.new docs/licences.md

clean:
	rm -rf .venv .tox build

$(RUN)/installed: requirements.lock
	$(PYTHON) -m venv $(RUN)
	$(RUN)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# pip needs a minute for these packages, and uv a few seconds.
$(DEV)/installed: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(DEV)/bin/uv pip install --quiet --python $(DEV) -r requirements-dev.txt
	@touch $@

# Linters of the contract and of the UI, generators of clients, with Node.js, Java and Go, and what writes the bill of
# materials.
# Go downloads nothing, and compiles without inlining, which takes two thirds of the time.
GO := GOENV="$(CURDIR)/$(TOOLS)/go.env" $(TOOLS)/bin/go
$(TOOLS)/installed: tests/tools/requirements.txt tests/tools/package-lock.json constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r tests/tools/requirements.txt
	cp tests/tools/package.json tests/tools/package-lock.json $(TOOLS)
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(NODE_CERTS) npm ci --prefix $(TOOLS) --ignore-scripts --no-audit --no-fund --loglevel error
	$(GO) env -w GOCACHE="$(CURDIR)/$(TOOLS)/go" GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-gcflags=all=-l
	$(GO) build net/http/httputil encoding/xml  # what clients use of Go's library, which comes as source
	@touch $@

$(BENCH)/installed: requirements.txt bench/requirements.txt constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@
