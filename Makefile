# make demo   the whole line on synthetic music, offline
# make filemap   rewrite the pages docs/filemap.md and docs/settings.md
# make test   lint, types, import floors, tests (which build the site), benchmarks once as tests
# make docs   the site of all pages and of the Python reference, into build/site
# make faults   kills, full disks, bad bits and hostile files in full: 20 kills, 1000 bits, 10,000 arrivals, 8 hours of audio
# make bench  benchmarks timed: benchmarks/README.md anew; PART=extraction, store, training, lora, hearing or beside for one part alone
# make backbone  the embedded backbone's weights, anew, from nothing; make hard-backbone  those that went on from them
# make models  the predictors that ship, anew: hours on two cores; what is finished is kept in runs/models
# make comparison  the table of backbones, poolings and regimes, into docs/comparison.md; ON=DIR tests on other data too
PYTHON ?= python3
BIN := .venv/bin
# Python compiles what it imports, once: a tenth of what is installed.
PIP := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
# A file of tests runs in one process, which makes its fixtures once.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
# Tests flush thousands of small files to the disk: in memory, where 6 GB are free, they take a sixth less time.
IN_MEMORY = free=$$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1); \
	if test "$${free:-0}" -gt 6000000; then TMPDIR=$$(mktemp -d /dev/shm/bm.XXXXXX); export TMPDIR; \
	trap 'rm -rf "$$TMPDIR"' EXIT; trap 'exit 130' INT TERM; fi;

.PHONY: demo test docs faults bench backbone hard-backbone models sections-model groupings-model comparison filemap clean

demo: .venv/installed
	$(BIN)/beatmeter demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/kernels.py & kernels=$$!; $(BIN)/lint-imports --no-cache & floors=$$!; \
	$(BIN)/mypy --num-workers 2 && wait $$floors && wait $$kernels
	$(IN_MEMORY) $(BIN)/pytest $(WORKERS)

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

faults: .venv/installed
	BEATMETER_FULL=1 $(BIN)/pytest $(WORKERS) tests/store tests/audio tests/runtime/test_regular.py \
	tests/features/backbones/test_checkpoint_folders.py tests/features/test_extraction.py tests/features/test_engines.py \
	tests/features/test_watch.py tests/datasets/test_tables.py tests/datasets/test_audio_folder.py tests/cli/test_hostile_input.py \
	tests/cli/test_hostile_runs.py tests/cli/test_no_waiting_for_pipes.py tests/learning/test_one_process_trains.py tests/learning/test_resume.py

bench: .venv/installed
	BEATMETER_BENCH_LINES=$(CURDIR)/benchmarks/results.jsonl \
	$(BIN)/pytest -n 0 -s --benchmark-enable --benchmark-quiet benchmarks$(if $(PART),/bench_$(PART).py); \
	status=$$?; $(BIN)/python benchmarks/page.py && exit $$status

MUSIC := data/synthetic
MIXTURE := data/meter
MORE_MIXTURE := data/more-meter
MEMBERS := spectral-lag embedded-lag embedded-lora
LONG := runs/models/spectral-long runs/models/embedded-long
ALL := $(MEMBERS:%=runs/models/%) $(LONG)

models: .venv/installed $(ALL:%=%/calibration.json) runs/models/beats/evaluation/val.json
	$(BIN)/beatmeter ensemble $(MEMBERS:%=runs/models/%) --calibrated --out runs/models/ensemble
	$(BIN)/beatmeter calibrate runs/models/ensemble
	$(BIN)/python tools/hear_members.py $(MIXTURE) runs/models/ensemble $(LONG)
	$(BIN)/beatmeter ensemble $(LONG) --calibrated \
	--validation meter-val --split meter-long-val --out runs/models/ensemble-long
	$(BIN)/beatmeter calibrate runs/models/ensemble-long --split meter-val --sure-on meter-long-val
	$(BIN)/beatmeter similarity fit --out beatmeter/models/harmony --jobs 2
	$(BIN)/beatmeter models pack $(ALL) runs/models/ensemble runs/models/ensemble-long runs/models/beats \
	--validation meter-val --default ensemble-long --out beatmeter/models

# Beats are learned from clips first, then from songs and ballads too, then also from songs in eighths and
# sixteenths.
CLIPS := data/beat-clips
BALLADS := data/beat-songs
BARS := data/beats

$(CLIPS)/manifest.csv:
	$(BIN)/beatmeter data synth $(CLIPS) --clips 2400 --seed 5 --mix music --jobs 2

$(BALLADS)/manifest.csv:
	$(BIN)/python tools/beats_data.py $(BALLADS) --clips 220 --songs 140 --ballads 140 --excerpt 60 --seed 31 --jobs 2

$(BARS)/manifest.csv:
	$(BIN)/python tools/beats_data.py $(BARS) --clips 220 --songs 140 --ballads 140 --eighths 160 --sixteenths 140 --excerpt 60 --seed 31 --jobs 2

AGAIN := --set training.epochs=8 --set training.head_lr=3e-3
runs/models/beat-songs/evaluation/val.json: private MORE := --set training.start=runs/models/beat-clips $(AGAIN)
runs/models/beats/evaluation/val.json: private MORE := --set training.start=runs/models/beat-songs $(AGAIN)
runs/models/beats/evaluation/val.json: $(BARS)/manifest.csv runs/models/beat-songs/evaluation/val.json
runs/models/beat-songs/evaluation/val.json: $(BALLADS)/manifest.csv runs/models/beat-clips/evaluation/val.json
runs/models/beat-clips/evaluation/val.json: $(CLIPS)/manifest.csv

runs/models/beats/evaluation/val.json runs/models/beat-songs/evaluation/val.json runs/models/beat-clips/evaluation/val.json: runs/models/%/evaluation/val.json:
	if test -e runs/models/$*/config.toml; then $(BIN)/beatmeter train --resume runs/models/$*; \
	else $(BIN)/beatmeter train --frozen $(<D) --recipe embedded-beats --out runs/models/$* $(MORE); fi

$(MUSIC)/manifest.csv:
	$(BIN)/beatmeter data synth $(MUSIC) --clips 6000 --jobs 2

runs/models/embedded-lora/calibration.json: runs/models/embedded-lag/calibration.json
runs/models/embedded-lora/calibration.json: private MORE := --set training.start=runs/models/embedded-lag --set limit=1200 --set training.epochs=2

runs/models/%/calibration.json: $(MUSIC)/manifest.csv
	if test -e runs/models/$*/config.toml; then $(BIN)/beatmeter train --resume runs/models/$*; \
	else $(BIN)/beatmeter train $(if $(findstring lora,$*),--lora,--frozen) $(MUSIC) --recipe $* --out runs/models/$* $(MORE); fi
	$(BIN)/beatmeter calibrate runs/models/$*

# Ordinary, hard and short music together; when there is a meter is learned from ordinary music alone.
$(MIXTURE)/manifest.csv:
	$(BIN)/python tools/meter_data.py $(MIXTURE) --jobs 2

# Of these clips its features have more to learn from; those of spectral-long have not.
$(MORE_MIXTURE)/manifest.csv:
	$(BIN)/python tools/meter_data.py $(MORE_MIXTURE) --seed 100 --ordinary 900 --hard 2300 --short 600 --unheard 0 --train --jobs 2

runs/models/embedded-long/calibration.json: $(MORE_MIXTURE)/manifest.csv
runs/models/embedded-long/calibration.json: private MORE := --set data.extra=$(MORE_MIXTURE)

# Heads with long lags begin with what one learned of ordinary music.
SPECTRAL_START := runs/models/spectral-lag
EMBEDDED_START := runs/models/embedded-start
runs/models/spectral-long/calibration.json: $(SPECTRAL_START)/calibration.json
runs/models/spectral-long/calibration.json: private START := $(SPECTRAL_START)
runs/models/embedded-long/calibration.json: $(EMBEDDED_START)/evaluation/test.json
runs/models/embedded-long/calibration.json: private START := $(EMBEDDED_START)

$(EMBEDDED_START)/evaluation/test.json: $(MUSIC)/manifest.csv
	if test -e $(EMBEDDED_START)/config.toml; then $(BIN)/beatmeter train --resume $(EMBEDDED_START); \
	else $(BIN)/beatmeter train --frozen $(MUSIC) --recipe embedded-long --out $(EMBEDDED_START) \
	--set features.poolings=lag --set head.poolings=lag \
	--set training.epochs=24 --set training.patience=24 --set training.head_lr=2e-3 --set training.accumulation=8; fi

$(LONG:%=%/calibration.json): runs/models/%-long/calibration.json: $(MIXTURE)/manifest.csv
	if test -e runs/models/$*-long/config.toml; then $(BIN)/beatmeter train --resume runs/models/$*-long; \
	else $(BIN)/beatmeter train --frozen $(MIXTURE) --recipe $*-long --out runs/models/$*-long \
	--set training.start=$(START) $(MORE); fi
	$(BIN)/beatmeter calibrate runs/models/$*-long --music $(MUSIC)

models: sections-model groupings-model

sections-model: .venv/installed
	$(BIN)/python tools/sections_model.py beatmeter/models/sections/model.safetensors

groupings-model: $(MIXTURE)/manifest.csv
	$(BIN)/python tools/groupings_model.py $(MIXTURE) beatmeter/models/groupings/model.safetensors --keep runs/groupings

backbone: .venv/installed
	if test -e runs/pretrain/last.safetensors; then $(BIN)/beatmeter pretrain --resume runs/pretrain; \
	else $(BIN)/beatmeter pretrain --out runs/pretrain; fi
	cp runs/pretrain/backbone/* beatmeter/models/embedded/

# 10 and 30 s in turn, and what pre-training asks of hard music.
WINDOWS := clips=12 chunks=2 long_after=0 longest_lag=14
LOSSES := chord_weight=0.25 company_weight=0.5 grouping_weight=0.5
HARD := $(WINDOWS) hard=0.6 $(LOSSES) average=0.998 lr=1e-3 warmup=150
GOING_ON := start=embedded steps=1400 $(HARD)
# Then other music, and two losses more.
FURTHER := start=runs/pretrain-hard/backbone seed=1 steps=3600 $(HARD) beat_phase_weight=0.5 second_weight=0.5

hard-backbone: .venv/installed
	if test -e runs/pretrain-hard/last.safetensors; then $(BIN)/beatmeter pretrain --resume runs/pretrain-hard; \
	else $(BIN)/beatmeter pretrain --out runs/pretrain-hard $(GOING_ON:%=--set %); fi
	if test -e runs/pretrain-further/last.safetensors; then $(BIN)/beatmeter pretrain --resume runs/pretrain-further; \
	else $(BIN)/beatmeter pretrain --out runs/pretrain-further $(FURTHER:%=--set %); fi
	cp runs/pretrain-further/backbone/* beatmeter/models/embedded-hard/

comparison: .venv/installed
	$(BIN)/python tools/comparison.py $(ON:%=--on %)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip  # what comes with Python is slower by half a minute
	$(PIP) torch
	$(PIP) --editable '.[dev]'
	touch $@

filemap:
	$(PYTHON) tests/filemap.py

clean:
	rm -rf .venv build *.egg-info
