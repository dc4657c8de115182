# Two commands set everything up: `make demo` and `make test`. They need Python 3.11, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format docs clean

$(BIN)/regard: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(BIN)/regard
	$(BIN)/python -m pip install --quiet --editable ".[test,check]"
	touch $@

$(VENV)/.docs: $(BIN)/regard
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

demo: $(BIN)/regard  ## train a ViT with a swapped attention beside its softmax twin
	$(BIN)/regard demo

test: $(VENV)/.test  ## the whole suite
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.test  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
