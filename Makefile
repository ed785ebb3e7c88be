# make demo   the whole line on synthetic music, offline
# make filemap   rewrite the README's file map and docs/settings.md
# make test   lint, types, import floors, tests, benchmarks once as tests
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test filemap clean

demo: .venv/installed
	$(BIN)/beatmeter demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 --dist loadgroup

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

filemap: .venv/installed
	$(BIN)/python tests/filemap.py

clean:
	rm -rf .venv build *.egg-info
