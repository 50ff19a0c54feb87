# Two commands: `make demo` and `make test`.  Both make the environment .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto

.PHONY: demo test lint docs figures benchmarks clean

demo: $(VENV)/ready
	$(BIN)/sdekit report psld --data digits -o report/
	@echo "open report/index.html"

# The tests run side by side, on one thread each.
test: export OMP_NUM_THREADS = 1
test: $(VENV)/ready
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(PYTEST_ARGS) --nbmake --nbmake-timeout=300 notebooks

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The manual, warnings as errors; NOTEBOOKS=off shows them as they are, without running them.
NOTEBOOKS ?= force
docs: $(VENV)/ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html -D nb_execution_mode=$(NOTEBOOKS) docs docs/_build
	@echo "open docs/_build/index.html"

figures: $(VENV)/ready
	$(BIN)/python -m paper_figures.all

benchmarks: $(VENV)/ready
	$(BIN)/python tests/benchmarks/step_overhead.py

clean:
	rm -rf $(VENV) report

# torch first and by its pin: an unpinned torch takes gigabytes of device libraries.
$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sdekit needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[images,dev]'
	@touch $@
