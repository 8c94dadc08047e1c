# The verbs of this project; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test test-weights test-faults fuzz test-release test-containers test-browser test-all check docs bench images lock dist clean

help:
	@echo 'make install       make .venv and install retrain'
	@echo 'make demo          train on tf_files/, label test_data/, show what came out'
	@echo 'make test          the tests that need neither real weights nor minutes; WORKERS=N at once, 2 by default'
	@echo 'make test-weights  the tests that need real weights or minutes'
	@echo 'make test-faults   the tests with kills, full disks and mutants by the hundred'
	@echo 'make fuzz          the same, 50 times as long; ROUNDS=N times'
	@echo 'make test-release  the tests that build the package and install it; needs the package index'
	@echo 'make test-containers  the tests of the images that make images built'
	@echo 'make test-browser  the tests that open reports in Chromium, which must be installed'
	@echo 'make test-all      all of these'
	@echo 'make check         ruff, mypy, the import contracts, and whether generated pages are up to date'
	@echo 'make docs          write docs/commands.md, docs/backbones.md and the table of docs/exports.md again'
	@echo 'make bench         run the scripts of benchmarks/; needs CORPORA=DIR FOLDS=DIR'
	@echo 'make images        build the images retrain:train, :runtime and :serve with CONTAINER_ENGINE'
	@echo 'make lock          choose the versions that the images get anew (docker/requirements-*.txt)'
	@echo 'make dist          build the package, wheel and source, into dist/'
	@echo 'make clean         delete .venv and the caches of tools; models and labelled pictures stay'
	@echo 'Another Python: make demo PYTHON=python3.13'

install: $(VENV)/.installed

# pip runs again when the list of dependencies changes; a .venv without pip (made without python3-venv) is made anew.
$(VENV)/.installed: setup.cfg pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) not found; run: sudo apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), retrain needs 3.11 or newer;" \
	       "install one with its venv package, say: sudo apt install python3.11 python3.11-venv"; \
	  echo "      and name it: make $(or $(MAKECMDGOALS),install) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; run: sudo apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) -e . || { \
	  echo "make: pip failed. No network? Then run make again later. No tensorflow for $$($(BIN)/python -V)?" \
	       "Then: make clean, and use a Python that has one, say PYTHON=python3.13"; exit 1; }
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(PIP) -e '.[test]'
	@touch $@

# Exit code 3 means that some pictures were skipped: they are named, and the demo goes on.
demo: install
	$(BIN)/retrain train tf_files/ || [ $$? -eq 3 ]
	@echo
	$(BIN)/retrain classify test_data/ classified/ || [ $$? -eq 3 ]
	@echo
	@ls classified/*-[01].*

# A file stays with one worker, as its fixtures are made once; by name, as the longest come first then. WORKERS=0: no worker.
AT_ONCE = -n $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest $(AT_ONCE) -m "not weights and not release and not container and not faults and not browser"

test-weights: $(VENV)/.installed-tests
	$(BIN)/python -m pytest $(AT_ONCE) -m weights

test-faults: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m faults

# ROUNDS: how many times as long as in CI.
fuzz: $(VENV)/.installed-tests
	RETRAIN_FAULT_ROUNDS=$(or $(ROUNDS),50) $(BIN)/python -m pytest -m faults -s

test-release: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m release

test-containers: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m container

test-browser: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m browser

test-all: test test-weights test-browser test-faults test-release test-containers

check: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/make_reference.py --check
	$(BIN)/python docs/make_backbones.py --check
	$(BIN)/python docs/make_exports.py --check

docs: install
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_backbones.py
	$(BIN)/python docs/make_exports.py

bench: $(VENV)/.installed-tests
	@[ -d "$(CORPORA)" ] && [ -d "$(FOLDS)" ] || { \
	  echo "make: say where the pictures and the folds are: make bench CORPORA=DIR FOLDS=DIR"; exit 1; }
	$(BIN)/python benchmarks/embedded_weights.py "$(CORPORA)"
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/serve_load.py
	$(BIN)/python benchmarks/extraction.py "$(CORPORA)"
	$(BIN)/python benchmarks/whole_train.py "$(CORPORA)"
	$(BIN)/python benchmarks/accuracy.py "$(CORPORA)" "$(FOLDS)"
	$(BIN)/python benchmarks/backbones.py "$(CORPORA)" "$(FOLDS)"
	$(BIN)/python benchmarks/calibration.py "$(CORPORA)" "$(FOLDS)"
	$(BIN)/python benchmarks/unknown.py "$(CORPORA)" "$(FOLDS)"
	$(BIN)/python benchmarks/better_models.py "$(CORPORA)" "$(FOLDS)" --frozen-only
	$(BIN)/python benchmarks/wrong_labels.py "$(CORPORA)" "$(FOLDS)"
	$(BIN)/python benchmarks/shortcuts.py "$(CORPORA)"
	$(BIN)/python benchmarks/check_scale.py
	$(BIN)/python benchmarks/exports.py "$(CORPORA)"

# BASE: another base image, with Python 3.11 or newer. RETRAIN_IMAGE: another name.
CONTAINER_ENGINE ?= $(firstword $(shell command -v docker; command -v podman) docker)
RETRAIN_IMAGE ?= retrain
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' retrain/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

images: image-runtime image-serve image-train

# Podman drops the check of health from images of its own format.
image-%:
	BUILDAH_FORMAT=docker $(CONTAINER_ENGINE) build . -f docker/Dockerfile --target $* -t $(RETRAIN_IMAGE):$* $(if $(BASE),--build-arg BASE=$(BASE)) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command 'make lock' --upgrade

lock: $(VENV)/.installed
	$(PIP) uv
	$(LOCK) setup.cfg docker/requirements-runtime.in --extra serve -c docker/constraints.txt -o docker/requirements-train.txt >/dev/null
	$(LOCK) docker/requirements-runtime.in -c docker/requirements-train.txt -o docker/requirements-runtime.txt >/dev/null
	$(LOCK) docker/requirements-build.in -c docker/requirements-train.txt -o docker/requirements-build.txt >/dev/null

# From a clone, so that nothing that lies about gets in; times and permissions do not depend on who builds where.
dist: $(VENV)/.installed-tests
	@git diff --quiet HEAD || { \
	  echo 'make: some changes are not committed, and a release is made of a commit; commit them'; exit 1; }
	rm -rf dist build/clone
	umask 022 && git clone --quiet . build/clone
	umask 022 && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist build/clone
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find retrain tests docs benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
