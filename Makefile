# `make demo` and `make test` do their whole job on a machine with Python 3.11 to 3.13 and make.
# Everything else is installed into .venv from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# More than two cores can serve: some tests wait for a browser or a server most of the time.
TEST_WORKERS ?= 3

# Container images often forbid byte code to stay small; each of the hundreds of processes of a run would then compile
# all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test faults ui lint lock clean

demo: $(READY)
	$(BIN)/retail-platform demo

ui: $(READY)
	$(BIN)/retail-platform ui

test: $(READY)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# The whole fault matrix on both catalogs, a quarter of an hour on a quiet machine; it writes docs/faults.md.
faults: $(READY)
	$(BIN)/python -m retail_platform_tests.faults

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): requirements.lock pyproject.toml setup.cfg
	sh tools/make-venv.sh "$(PYTHON)" "$(VENV)"
	touch $@

# The one command that renews the lock: exact versions and hashes for every supported Python, no address.
lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --upgrade \
		--no-emit-index-url --no-annotate --no-header --quiet pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
