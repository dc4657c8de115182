# Two commands set everything up: `make demo` and `make test`. They need Python 3.11, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LMMS := .venv-lmms

.PHONY: demo test test-complete test-full test-lmms check format docs clean

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

demo: $(BIN)/regard  ## train a ViT with a swapped attention next to its softmax twin
	$(BIN)/regard demo

$(VENV)/.full: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable ".[test,check,benchmark,docs,huggingface,onnx,ray,wsi,zarr]"
	touch $@

$(LMMS)/.test: pyproject.toml
	$(PYTHON) -m venv $(LMMS)
	$(LMMS)/bin/python -m pip install --quiet --editable ".[test,lmms]"
	touch $@

test: $(VENV)/.test  ## the suite; what is skipped is named at the end
	$(BIN)/python -m pytest -n 2

test-complete: $(VENV)/.full  ## the same with every optional package; a test that is skipped counts as failed
	$(BIN)/python -m pytest -n 2 --complete

test-full: $(VENV)/.full  ## the suite with all cells of its matrices; a test that is skipped counts as failed
	$(BIN)/python -m pytest -n 2 -m "full or not full" --complete

test-lmms: $(LMMS)/.test  ## the adapter for lmms-eval, against the library itself
	$(LMMS)/bin/python -m pytest tests/mllm/test_lmms_eval.py -m "full or not full" --complete

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
	rm -rf $(VENV) $(LMMS) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
