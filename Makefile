# Everything a developer or CI machine runs. `make` alone prints what there is.
PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements/dev.lock

.DEFAULT_GOAL := help
.PHONY: help venv check test long hosts demo bench bench-long schemas lock clean

help: ## print this
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

venv: .venv/installed ## set up .venv from the lock file (the others do it by themselves)

# Debian splits ensurepip off into a package of its own; root gets it installed, others are told.
.venv/installed: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo '$(PYTHON) is missing or older than 3.11: install a newer one, or name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$$package"; \
	else echo "$(PYTHON) can't make virtual environments here: install $$package (apt-get install $$package, as root)" >&2; exit 1; \
	fi; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

check: .venv/installed ## lint, format, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 --package rollout.agent # as old as a host may be (adapters/agent_on_hosts.py)
	$(BIN)/lint-imports --no-logo

test: .venv/installed ## all tests but the long ones; those on the real lab come last, with the machine to themselves
	$(BIN)/python -m pytest -n 4 -m "not end_to_end and not long" --durations=15
	$(BIN)/python -m pytest -m "end_to_end and not long" --durations=30

long: .venv/installed ## those that CI has no time for: 300 rollouts of good workers; StatefulSets; on the real lab bad releases, most nights, sequential gates
	$(BIN)/python -m pytest -n 2 -m "not end_to_end and long" --ignore=tests/kubernetes
	$(BIN)/python -m pytest -m long tests/kubernetes
	$(BIN)/python -m pytest -m "end_to_end and long"

hosts: .venv/installed ## of these, those that roll a Synapse cluster on two hosts with systemd
	$(BIN)/python -m pytest -m two_hosts

demo: .venv/installed ## roll a real Synapse worker cluster to a new release under load (build/demo)
	$(BIN)/rollout demo

bench: .venv/installed ## the benchmarks: a table each, and build/bench/NAME.json
	$(BIN)/python -m tests.benchmarks

bench-long: .venv/installed ## thousands of rollouts of good workers, for hours (tests/benchmarks/gates/long.json)
	$(BIN)/python -m tests.benchmarks.gates.long

schemas: .venv/installed ## write the JSON Schemas anew (rollout/schemas)
	for kind in inventory playbook plan; do $(BIN)/rollout schema $$kind > rollout/schemas/$$kind.schema.json || exit 1; done

lock: .venv/installed ## resolve all dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra lab --group dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-annotate --no-header --quiet --output-file $(LOCK)

clean: ## end labs that are up, and remove what the others made
	@for lab in build/lab build/demo/lab build/bench/*/lab; do \
	if [ -e $$lab/lab.json ] && [ -x $(BIN)/rollout ]; then $(BIN)/rollout lab down --purge --dir $$lab; fi; \
	done
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
