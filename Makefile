# What people type here. `make help` lists it; the work is in the scripts.
VENV ?= .venv
JOBS ?= auto
export VENV
ROOMS := $(notdir $(patsubst %/,%,$(wildcard tests/*/)))
ROOMS := $(filter-out doubles golden __pycache__,$(ROOMS))

.PHONY: help demo install test fast lint format docs serve lowest $(addprefix test-,$(ROOMS))

help:
	@echo "make demo         label the example photos with the bundled model (needs nothing but Python)"
	@echo "make install      an environment to work in, $(VENV)"
	@echo "make test         everything: lint, types, imports, tests (sh test.sh)"
	@echo "make fast         the tests without the slow ones, on the sources"
	@echo "make test-ROOM    the tests of one room: $(ROOMS)"
	@echo "make lint         ruff, mypy and import-linter"
	@echo "make format       ruff's format and its safe repairs"
	@echo "make docs         the documentation site, strictly, in site/"
	@echo "make serve        the same at http://127.0.0.1:8000, renewed as you write"
	@echo "make lowest       the runtime's tests on the lowest versions that pyproject.toml allows"

demo:
	env -u VENV sh demo.sh

install:
	[ -x $(VENV)/bin/python ] || python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[cpu,train,export,rtx,benchmark,docs,dev]"

test:
	sh test.sh

fast:
	$(VENV)/bin/pytest -m "not gpu and not slow" -n $(JOBS) --dist worksteal

$(addprefix test-,$(ROOMS)): test-%:
	$(VENV)/bin/pytest tests/$* -n $(JOBS) --dist worksteal

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	sh scripts/mypy.sh

format:
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs:
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

serve:
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

lowest:
	sh scripts/lowest_versions.sh
