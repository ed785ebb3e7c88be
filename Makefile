# make demo   the whole line on synthetic music, offline
# make filemap   rewrite the README's file map and docs/settings.md
# make test   lint, types, import floors, tests, benchmarks once as tests
# make bench  benchmarks timed: benchmarks/README.md anew; PART=extraction, store, training or lora for one part alone
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench filemap clean

demo: .venv/installed
	$(BIN)/beatmeter demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n 2 --dist loadgroup

bench: .venv/installed
	BEATMETER_BENCH_LINES=$(CURDIR)/benchmarks/results.jsonl \
	$(BIN)/pytest -n 0 -s --benchmark-enable --benchmark-quiet benchmarks$(if $(PART),/test_$(PART).py); \
	status=$$?; $(BIN)/python benchmarks/page.py && exit $$status

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

filemap: .venv/installed
	$(BIN)/python tests/filemap.py

clean:
	rm -rf .venv build *.egg-info
