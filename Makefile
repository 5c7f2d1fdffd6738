# `make demo` and `make test` each work as the first command after `git clone`, on x86-64 Linux with
# Python 3.11 to 3.14: `setup` makes .venv, once, and does nothing while the lock stays as it is.

PYTHON ?=
RUN ?= specs/runs/demo.toml
INDEX ?= 0
PYTEST_ARGS ?=
export PYTHON

py := .venv/bin/python
stamp := .venv/.setup-$(shell cat requirements-cpu.txt pyproject.toml .ci/setup | cksum | tr ' ' '-')
# Nothing reports home; tests take their models from installed packages and ask no hub.
quiet := RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 HF_HUB_DISABLE_TELEMETRY=1
offline := $(quiet) HF_HUB_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench clean distclean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(stamp) ## make .venv with everything in it (a few minutes, once)

$(stamp):
	@sh .ci/setup $@

demo: setup ## write dialogues, learn from them, measure that; show dialogue INDEX (RUN=specs/runs/demo.toml)
	$(quiet) $(py) -m cluster.cli run $(RUN)
	$(quiet) $(py) -m cluster.cli show $(RUN) --index $(INDEX)

test: setup ## every test that needs no GPU (PYTEST_ARGS='-k name' for some)
	$(offline) $(py) -m pytest tests/unit tests/ray tests/e2e -m "not gpu" -n 2 --dist loadgroup $(PYTEST_ARGS)

check: setup ## linters, formatting, types, import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

format: setup ## put the code in order as `check` wants it
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup ## figures of this machine; never a pass or fail on time
	$(offline) $(py) -m pytest tests/bench -m "not gpu" -s --timeout 3600 $(PYTEST_ARGS)

clean: ## caches and built packages (.venv and runs/ stay)
	rm -rf dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## .venv as well
	rm -rf .venv
