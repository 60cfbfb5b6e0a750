PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
# The tests start many processes; each would compile every module again where writing bytecode is switched off.
unexport PYTHONDONTWRITEBYTECODE
# Several workers, a thread each: numpy's pools, which wait by spinning, are made before any test is read.
ONE_THREAD := OMP_NUM_THREADS=1
.PHONY: help demo eval test coverage check lint quick bench leaderboard model depth-model estimation-model docs docs-site clean

DEMO := demo/shards/vif demo/shards/mef demo/shards/mff
TESTS := $(DEMO:%=%-test)
SHARDS ?= $(TESTS)
REPORT ?= report
MODEL ?= $(if $(filter $(TESTS),$(SHARDS)),demo/run)
JOBS ?= 2
NAME ?= clearfuse-small
BENCH ?= bench-work

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# torch goes first and by itself, so that no other package pulls another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("clearfuse needs Python 3.11 to 3.13" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $(READY)

demo: $(READY)  ## the whole chain on built-in scenes: demo/shards, demo/sheet.png, demo/run, demo/report
	$(BIN)/synth build --task vif --n 1-3 --out demo/shards/vif
	$(BIN)/synth build --task mef --n 1-3 --out demo/shards/mef
	$(BIN)/synth build --task mff --n 1-3 --out demo/shards/mff
	$(BIN)/synth build --task vif --n 1-3 --split test --limit 8 --out demo/shards/vif-test
	$(BIN)/synth build --task mef --n 1-3 --split test --limit 8 --out demo/shards/mef-test
	$(BIN)/synth build --task mff --n 1-3 --split test --limit 8 --out demo/shards/mff-test
	$(BIN)/synth verify $(DEMO) $(TESTS) --replay
	$(BIN)/synth preview $(DEMO) --samples 12 --out demo/sheet.png
	$(BIN)/train fit $(DEMO) --preset tiny-reg --steps 400 --out demo/run --device cpu
	$(BIN)/train eval $(TESTS) --model demo/run --model clearfuse-small --out demo/report

eval: $(READY)  ## score MODEL=dir and pipelines on SHARDS="dir ..." (the demo's) into REPORT=dir, the papers' tables beside them
	$(BIN)/train eval $(SHARDS) --out $(REPORT) --papers $(if $(MODEL),--model $(MODEL))

test: $(READY)  ## every test: under 15 minutes on two cores
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS)

coverage: $(READY)  ## every test, with coverage, which tells of each line that runs: a third longer
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --cov=clearfuse --cov-report=term:skip-covered --cov-fail-under=85

check: $(READY)  ## lint, types, quick tests, generated docs fresh: under two minutes on two cores
	@$(MAKE) --no-print-directory -j2 lint quick

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generate.py --check

# Without the check of every call's types and shapes, which takes two fifths of this time: `make test` has it.
quick: $(READY)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not gpu" -o addopts="-ra --strict-markers"

bench: $(READY)  ## the benchmarks: a table and a ratio for each claim
	$(BIN)/python benchmarks/scenes.py
	$(BIN)/python benchmarks/operators.py
	$(BIN)/python benchmarks/build.py
	$(BIN)/python benchmarks/executors.py
	$(BIN)/python benchmarks/fusers.py --sizes 256
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/training.py --preset tiny-fm --size 128 --batch 4 --steps 5
	$(BIN)/python benchmarks/cautious.py
	$(BIN)/python benchmarks/evaluation.py

# MAPS: pictures with inverse depth, "PICTURES,MAPS[,COUNT] ...", as the card names them. A checkpoint is kept; it goes on.
depth-model: $(READY)  ## train the small depth network on MAPS="..." and the built-in scenes: models/depth/README.md
	OMP_NUM_THREADS=1 $(BIN)/python models/depth/train.py --work models/depth/work --out synth/depth/small.safetensors $(MAPS:%=--maps %)

estimation-model: $(READY)  ## train the network of synth estimate on DATA="NAME=DIR ..." and the built-in scenes: models/estimation/README.md
	OMP_NUM_THREADS=1 $(BIN)/python models/estimation/train.py --work models/estimation/work $(DATA:%=--data %)

model: $(READY)  ## train a shipped model for hours: NAME=clearfuse-small DATA=dir WORK=dir; goes on where it was stopped
	$(BIN)/python models/train.py $(NAME) --data $(DATA) --work $(WORK)
	$(BIN)/python docs/curves.py

leaderboard: $(READY)  ## build mini in BENCH=dir, score what ships, write leaderboard/mini-*.json and docs/leaderboard.html
	$(BIN)/clearfuse bench build mini --out $(BENCH)/mini
	$(BIN)/clearfuse bench run $(BENCH)/mini --model clearfuse-small --out $(BENCH)/scores
	$(BIN)/clearfuse bench submit $(BENCH)/scores --method "pyramid on degraded" --name nothing --about "The pyramid fuser on the degraded pair: nothing is restored." --out leaderboard/mini-nothing.json
	$(BIN)/clearfuse bench submit $(BENCH)/scores --method "classical + pyramid" --about "Classical restorers told the degradations, then the pyramid fuser." --out leaderboard/mini-classical.json
	$(BIN)/clearfuse bench submit $(BENCH)/scores --method clearfuse-small --about "The model that ships, with the samples' prompts." --trained-on scenes --out leaderboard/mini-clearfuse-small.json
	$(BIN)/clearfuse bench submit $(BENCH)/scores --method "pyramid on clean" --about "The pyramid fuser on the clean pair." --out leaderboard/mini-clean.json
	$(BIN)/python docs/generate.py --pages

docs: $(READY)  ## regenerate the pages, pictures and notebooks that show the code, then build the site
	$(BIN)/python docs/generate.py
	@$(MAKE) --no-print-directory docs-site

# The variable silences an announcement of mkdocs-material about other people's plans for mkdocs.
docs-site: $(READY)  ## build the documentation site into site/, without a warning or a network: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove what demo and the tests left, not the environment
	rm -rf demo site .pytest_cache .ruff_cache .hypothesis .coverage
