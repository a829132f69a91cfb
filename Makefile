# make demo     see what it does, in the terminal (ONCE=1 ends after the story)
# make test     all tests
# make check    format, lint, types
# make soak     what takes minutes: ten thousand devices, attacks by the clock (prints its figures)
# make fuzz     a million hostile inputs, on every core (INPUTS=n SEED=n; what failed says how to
#               play it again: SCENE=name SEED=n STORIES=n)
# make cover    tests, with the branches that they miss
# make lock     pin anew what the tests and the demo install
#
# Everything lives in $(VENV); PYTHON chooses the interpreter that makes it (3.11 or later).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check soak fuzz cover lock clean

demo: $(READY)
	@# At a terminal the demo gets Ctrl-C alone: make would end with an error of its own.
	@if [ -t 0 ]; then set -m; fi; $(BIN)/wse demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

soak: $(READY)
	$(BIN)/python -m pytest -m soak -s

fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -W error -m fuzz $(if $(INPUTS),--inputs $(INPUTS)) \
		$(if $(SCENE),--scene $(SCENE)) $(if $(SEED),--seed $(SEED)) \
		$(if $(STORIES),--stories $(STORIES))

cover: $(READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --extra speed --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "wse needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@
