PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0

# by default glibc returns large blocks to the system and faults them in again at every step: keeping them makes
# training 1.5 times as fast
demo demo-best: export MALLOC_MMAP_THRESHOLD_ = 1000000000
demo demo-best: export MALLOC_TRIM_THRESHOLD_ = 4000000000

.PHONY: demo demo-best test test-slow lint format clean

demo: $(VENV)/.demo
	$(BIN)/python examples/solar_cells.py --seed $(SEED)

demo-best: $(VENV)/.demo
	$(BIN)/python examples/solar_cells.py --config examples/solar_cells_best.yaml --seed $(SEED)

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/callers.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
