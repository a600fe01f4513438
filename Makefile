# Every developer command. `make demo` and `make test` set up what they need by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := src tests benchmarks examples docs web
# Browser for the checks of the page: Debian's chromium, or whatever FIELDMARK_CHROMIUM names.
FIELDMARK_CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
export FIELDMARK_OFFLINE := 1
# A process a core, at most four: each holds a copy of the libraries.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help install demo check test test-all test-real test-page test-gpu bench docs page format clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,parquet,heic,tensorboard]'
	@touch $@

install: $(INSTALLED) ## create .venv with everything a developer needs

demo: $(INSTALLED) ## draw look-alike birds, train on them without labels, write demo/run/report.html
	$(BIN)/fieldmark sample demo/photos
	$(BIN)/fieldmark train demo/photos/images --recipe demo --probe demo/photos/split.csv --out demo/run
	@echo "Open demo/run/report.html in a browser."

check: $(INSTALLED) ## lint, format, types, layers, generated docs
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python web/stamp.py --check

test: $(INSTALLED) ## the default suite, under five minutes on two cores
	$(BIN)/python -m pytest -q $(PARALLEL)

test-all: $(INSTALLED) ## also the slow checks (not gpu, not real photos)
	$(BIN)/python -m pytest -q -m "not gpu and not real and not page" $(PARALLEL)

test-real: $(INSTALLED) ## checks on real photos: FIELDMARK_DATA=DIR make test-real
ifdef FIELDMARK_DATA
	FIELDMARK_DATA="$(abspath $(FIELDMARK_DATA))" $(BIN)/python -m pytest -q -m real --timeout 1200
else
	@echo "NOT RUN: checks on real photos need FIELDMARK_DATA=DIR (a folder of photos and weights)."
endif

test-page: $(INSTALLED) ## checks of the page: types and units (npm), whole flows in Chromium
ifeq ($(shell command -v npm),)
	@echo "NOT RUN: types and unit tests of the page need node and npm."
else
	cd web && npm ci --silent --no-audit --no-fund && npm run --silent check && npm test --silent
endif
ifeq ($(FIELDMARK_CHROMIUM),)
	@echo "NOT RUN: flows in the browser need Chromium (Debian, Ubuntu: apt-get install chromium)."
else
	FIELDMARK_CHROMIUM="$(FIELDMARK_CHROMIUM)" $(BIN)/python -m pytest -q -m page --timeout 300
endif

test-gpu: $(INSTALLED) ## checks that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

bench: $(INSTALLED) ## measure speeds as ratios and write benchmarks/results (quiet machine)
	$(BIN)/python benchmarks/run_all.py

docs: $(INSTALLED) ## rewrite docs/cli.md and docs/config.md from the code
	$(BIN)/python docs/generate.py

page: $(INSTALLED) ## build the browser app into src/fieldmark/app/static (needs node and npm)
	cd web && npm ci --silent --no-audit --no-fund && npm run --silent build
	$(BIN)/python web/stamp.py

format: $(INSTALLED) ## put all code into the house format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean: ## remove what was built, not the environment
	rm -rf demo build web/node_modules dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
