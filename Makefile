# make run    the baseline scenario: the whole stack at 10 000 payments a minute, judged
# make test   checks, then every test
# make check  format, lint, types, import arrows
# make setup  .venv with everything in it, which all of these do by themselves
# make bench  the gateway and the simulator beside their yardsticks

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test check bench setup
.DEFAULT_GOAL := run

run: $(INSTALLED)
	@$(BIN)/paydrome run baseline

# Bytecode is kept, whatever the environment says: the tests start processes by the dozen, and each would compile us anew. Three
# workers for two cores, as a worker often waits for a process; who is done takes over tests of the others.
test: check
	@echo "== tests"
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n 3 --dist worksteal

check: $(INSTALLED)
	@echo "== format" && $(BIN)/ruff format --check --quiet .
	@echo "== lint" && $(BIN)/ruff check --quiet .
	@echo "== types" && $(BIN)/mypy
	@echo "== imports" && $(BIN)/lint-imports --no-logo >.venv/imports.txt || { cat .venv/imports.txt; exit 1; }

bench: $(INSTALLED)
	@$(BIN)/pytest tests/benchmarks --benchmark-enable --benchmark-columns=median,iqr,rounds -s

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "== setting up .venv (about half a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
