# Two commands matter: `make run` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Where the environment forbids bytecode, each of hundreds of processes compiles 40,000 lines before its first one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test compiled test-compiled check conformance conformance-client corpus faults soak bench bench-house bench-rooms monitoring docs lock clean
.DEFAULT_GOAL := test

$(READY): requirements/test.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)            ## the sidecar in front of a real third-party MCP server, until Ctrl-C
	@exec $(BIN)/mcp-sidecar demo --serve

test: $(READY)           ## every test; sets up Node and the older SDK by itself
	$(BIN)/python -m pytest -n 2 --dist loadfile

compiled: $(READY)       ## the same source with what a call passes through compiled, in .tools (needs cc; minutes)
	$(BIN)/python -m tests.compiled

test-compiled: $(READY)  ## every test against that
	$(BIN)/python -m tests.compiled pytest -n 2 --dist loadfile

check: $(READY)          ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

conformance: $(READY)    ## the official suite, direct and through the sidecar, four revisions
	$(BIN)/python -m tests.conformance.run

conformance-client: $(READY)  ## the official client suite, direct and through the sidecar (minutes)
	$(BIN)/python -m tests.conformance.client_run

corpus: $(READY)         ## hostile requests as data: ATTACK_CORPUS=file to name another
	$(BIN)/python -m tests.corpus.run

faults: $(READY)         ## everything around a sidecar fails, thing by thing (half an hour); FAULTS='--only text'
	$(BIN)/python -m tests.faults $(FAULTS)

soak: $(READY)           ## the same for hours, in any order: SOAK_HOURS=8, FAULTS='--seed N' to repeat one
	$(BIN)/python -m tests.faults --soak-hours $(or $(SOAK_HOURS),8) $(FAULTS)

bench: $(READY)          ## beside nginx, Envoy and others, in one run; QUICK=1: two minutes (needs nginx and wrk)
	$(BIN)/python -m tests.bench.side $(if $(QUICK),--quick)

bench-house: $(READY)    ## start, memory, streams, calls and identity of the sidecar alone; never asserted
	$(BIN)/python -m tests.bench

bench-rooms: $(READY)    ## what single decisions cost, and how fair they are; never asserted
	$(BIN)/python -m tests.bench.policy_cost
	$(BIN)/python -m tests.bench.limits_cost
	$(BIN)/python -m tests.bench.fairness
	$(BIN)/python -m tests.bench.cache_cost
	$(BIN)/python -m tests.bench.metrics_cost
	$(BIN)/python -m tests.bench.audit_cost
	$(BIN)/python -m tests.bench.telemetry_cost
	$(BIN)/python -m tests.bench.hot_path

monitoring: $(READY)     ## after changing deploy/monitoring/: the dashboard's JSON, the rules as a Kubernetes object
	$(BIN)/python -m deploy.monitoring.dashboard
	$(BIN)/python -m deploy.monitoring.prometheus_rule

docs: $(READY)           ## after changing settings: the reference in docs/configuration.md
	$(BIN)/python -m docs.reference

lock:                    ## after changing pyproject.toml or a requirements/*.in file (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q pyproject.toml -o requirements/run.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q pyproject.toml --extra all -o requirements/image.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q pyproject.toml requirements/test.in -o requirements/test.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q requirements/compile.in -o requirements/compile.lock

clean:
	rm -rf $(VENV) .tools .mypy_cache .pytest_cache .ruff_cache
