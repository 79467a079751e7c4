# `make quickstart` and `make test` need only Python 3.11, pip and make; all else they install here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install quickstart test test-long faults fuzz lint types docs results check clean

install: $(STAMP)

$(STAMP): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c "import sys, venv; sys.exit(sys.version_info < (3, 11))" || (echo \
	  "Python 3.11 or newer with its venv module is needed; name one with PYTHON=..." >&2; exit 1)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/python -m research study experiments.quickstart --workers 2 --threads 1 --no-probe

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not long"

# Launches of several processes, kills and whole studies.
test-long: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m long

# For nights: 200 kills of real runs, and a million inputs to everything that reads.
faults: $(STAMP)
	SIXFOLD_KILLS=200 $(BIN)/python -m pytest -s tests/faults -k killed_again

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --cases 1000000

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The documentation, as pages in site/; no warning passes. Open site/index.html, or, for the search too,
# `python -m http.server --directory site`.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# The tables of README.md and docs/results.md, their pictures and the leaderboard's page, of the lines in
# experiments/results/.
results: $(STAMP)
	$(BIN)/python -m experiments.results.pages

check: test test-long lint types

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
