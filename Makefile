# `make help` names the targets. Everything they make lies in .venv and .cache and goes with `make clean`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Ansible refuses to work in a locale that is not UTF-8, and its output is read by programs.
export LC_ALL := C.UTF-8
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-down test bench lint unit docs clean

help:  ## Name the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.13 chooses the interpreter when .venv is made; it is $(PYTHON) unless told otherwise."

demo: $(VENV)/controller  ## Bring up a throw-away host that serves a site over TLS
	@$(BIN)/python tools/demo.py up

demo-down: $(VENV)/controller  ## Remove that host and all it left
	@$(BIN)/python tools/demo.py down

test: venv  ## Run the whole proof; ONLY="lint unit" runs a part, THOROUGH=1 tries random moments more often, WITHIN=75 begins no suite after so many minutes
	@$(BIN)/python tools/prove.py $(if $(ONLY),--only $(ONLY)) $(if $(WITHIN),--within $(WITHIN))

bench: venv  ## Measure speed against plain Ansible and plain nginx; ONLY="runtime" measures that alone
	@PYTHONPATH=tests:tools $(BIN)/python tests/benchmark/bench.py $(ONLY)

lint: venv  ## Check generated files, style and types
	@$(BIN)/python tools/prove.py --only generated lint types

unit: venv  ## Run the unit tests and measure what they cover
	@$(BIN)/python tools/prove.py --only unit

docs: $(VENV)/controller  ## Generate the roles' defaults and pages from their argument specs
	@$(BIN)/python tools/generate.py

clean:  ## Remove test hosts, an engine started here, the virtual environment and all caches
	@if [ -e $(VENV)/controller ]; then $(BIN)/python tools/testhosts down --all; $(BIN)/python tools/testhosts engine stop; fi
	rm -rf $(VENV) .cache .hypothesis .pytest_cache

venv: $(VENV)/developer  ## Make the virtual environment with all that `make test` needs

# What each file stands for is installed when it is newer than its requirements.
$(VENV)/developer: requirements.txt requirements-dev.txt $(VENV)/controller
	@echo "Installing what developers need (about a minute the first time) ..."
	@$(BIN)/python -m pip install -qq -r requirements-dev.txt
	@touch $@

$(VENV)/controller: requirements.txt $(VENV)/python
	@echo "Installing what the controller needs (about 20 seconds the first time) ..."
	@$(BIN)/python -m pip install -qq -r requirements.txt
	@touch $@

# The checkout is importable as the collection, and Ansible finds it there too.
$(VENV)/python:
	@command -v git >/dev/null || { echo "This machine lacks git (Debian: apt install git)."; exit 1; }
	@$(PYTHON) -c "" 2>/dev/null || { echo "This machine lacks $(PYTHON) (Debian: apt install python3 python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.13 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) lacks its venv module (Debian: apt install python3-venv)."; exit 1; }
	@echo "Making the virtual environment .venv with $$($(PYTHON) -V) ..."
	@$(PYTHON) -m venv $(VENV)
	@link="$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ansible_collections/fushuma" \
		&& mkdir -p "$$link" && ln -sfn "$(CURDIR)" "$$link/production"
	@touch $@
