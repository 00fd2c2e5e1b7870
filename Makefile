# raylora: `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
WHOLE := import pip; $(NEW_ENOUGH)
DEMO_OUT := out/demo
# Files in their order, since the long ones come first by name.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 30

.DEFAULT_GOAL := help
.PHONY: help install demo test docs check audit bench

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv and install raylora with everything it needs, at pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	@$(BIN)/python -c '$(WHOLE)' 2> /dev/null || $(PYTHON) -c '$(NEW_ENOUGH)' 2> /dev/null \
	    || { echo "error: $(PYTHON) is no Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c '$(WHOLE)' 2> /dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing raylora and what it needs into $(VENV): several GB are fetched, and pip is quiet until it has them."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install ## search on the bundled demo; the answer is in out/demo
	@if [ -e $(DEMO_OUT) ]; then mv $(DEMO_OUT) $(DEMO_OUT)-$$(date +%Y%m%d-%H%M%S); fi
	$(BIN)/raylora tune --demo --out $(DEMO_OUT)

test: install ## run the tests
	$(PYTEST)

audit: install ## known weaknesses of what is installed; what the advisory service doesn't know is told, not failed
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

docs: install ## build the documentation as a site, site/index.html; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

check: install audit docs ## lint, types, audit, documentation, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

bench: install ## run the quick benchmarks; PEER=SCRIPT (PEER_PATH=FOLDERS) adds the one against diffusers' LoRA script
	$(BIN)/python -m benchmarks.demo --quick
	$(BIN)/python -m benchmarks.train_step --quick
	$(BIN)/python -m benchmarks.gpu_step --quick
	$(BIN)/python -m benchmarks.measures --quick
	$(BIN)/python -m benchmarks.search --quick
	$(BIN)/python -m benchmarks.scale --quick
	$(BIN)/python -m benchmarks.nodes --quick
	$(BIN)/python -m benchmarks.faults --quick
	$(BIN)/python -m benchmarks.bad_input --quick
	$(BIN)/python -m benchmarks.dataset_check --quick
	@if [ -n "$(PEER)" ]; then $(BIN)/python -m benchmarks.against_diffusers --quick --peer $(PEER) $(if $(PEER_PATH),--peer-path $(PEER_PATH)); fi
