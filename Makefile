# make run and make test need Python 3.11+ (or uv, which brings its own) and nothing else; they keep what they need in .venv.

CONFIG ?= config/default.toml
PYTEST_ARGS ?=
BENCH_ARGS ?=
SHELL := /bin/sh
.DEFAULT_GOAL := help

BIN := .venv/bin
# Half a minute, once; a machine that cannot get them still runs all other tests.
WITH_PEERS := $(MAKE) --no-print-directory peers || echo "make peers failed: the tests that need them are skipped"
# What exists of these is checked; a folder that is not there yet is no error.
CODE := $(wildcard regrow runtime supervisors actors config tests bench)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/.for-run ## Start the daemon with CONFIG (config/default.toml)
	@exec $(BIN)/regrow run --config $(CONFIG)

.PHONY: test
test: lint ## Check style, types and imports, then run every test
	$(BIN)/python -m tests.support.install
	@$(WITH_PEERS)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Tracing doubles the time of the tests, so it is a target of its own.
.PHONY: coverage
coverage: .venv/.for-test ## Run every test and report what they cover
	$(BIN)/python -m tests.support.install
	@$(WITH_PEERS)
	$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: lint
lint: .venv/.for-test ## Check style, types and imports only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

.PHONY: format
format: .venv/.for-test ## Put the code in order
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: docs
docs: .venv/.for-test ## Write the pages of docs that are made from the code
	@$(BIN)/python -m regrow.reference docs

.PHONY: bench
bench: .venv/.for-bench ## Measure against the peers and write bench/results (BENCH_ARGS="ask tell" for some of it)
	@if [ -d bench ]; then exec $(BIN)/python -m bench --save $(BENCH_ARGS); else echo "no bench folder: nothing to measure"; fi

.PHONY: peers
peers: .venv/peers/.done ## Install the servers of others that some HTTP tests talk to; without them those are skipped

PEERS := tests/support/foreign/requirements.txt tests/support/foreign/package.json tests/support/peers_environment.py

.venv/peers/.done: $(PEERS) .venv/.for-test
	@$(BIN)/python -m tests.support.peers_environment
	@touch $@

.PHONY: ray
ray: .venv/ray/.done ## Install Ray (beside the project, in .venv/ray) and run the tests of pools on a cluster
	REGROW_RAY_PYTHON=$(CURDIR)/.venv/ray/bin/python $(BIN)/python -m pytest tests/actors/workers/test_ray.py

.venv/ray/.done: tests/support/ray/requirements.txt .venv/.for-test
	@.ci/beside ray $<
	@touch $@

.PHONY: pins
pins: .venv/.for-test ## Renew constraints.txt within the ranges of pyproject.toml (needs uv)
	@{ grep '^#' constraints.txt; echo setuptools | uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --all-extras --no-header --no-annotate pyproject.toml -; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: clean
clean: ## Remove the environment and everything that tools left; state of daemons (var) stays
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the files that decide what is installed, or the install runs again.
.venv/.for-run: pyproject.toml constraints.txt
	@.ci/environment demo
	@touch $@

.venv/.for-test: pyproject.toml constraints.txt
	@.ci/environment demo dev fuzz
	@touch .venv/.for-run $@

.venv/.for-bench: pyproject.toml constraints.txt
	@.ci/environment demo dev bench
	@command -v erl >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get install -y -qq --no-install-recommends erlang-nox >/dev/null; } || \
		echo "no erl here and no way to install it: the bench runs without OTP (Debian: erlang-nox)"
	@touch .venv/.for-run .venv/.for-test $@
