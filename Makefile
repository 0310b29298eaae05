# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Two processes; what needs Ray stays in one of them (tests/spread.py).
PYTEST := $(BIN)/python -m pytest -n 2

.PHONY: help install demo test cover quick lint bench results docs package constraints audit dashboard clean
.DEFAULT_GOAL := help

help:  ## show these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv with everything in it (a few minutes, once)

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip  # old ones do not resolve boto3 beside s3fs
	$(BIN)/python -m pip install --quiet --editable '.[cluster,dev]'
	touch $@

demo: $(INSTALLED)  ## train and analyse the demo grid: stripes appear, turn and vanish (two to three minutes on 2 cores)
	$(BIN)/sweep launch demo

test: $(INSTALLED)  ## run all tests (a quarter of an hour on 2 cores, twice that on slow ones)
	$(PYTEST) --durations=25

cover: $(INSTALLED)  ## run them and say how much of the code they ran; too little fails (takes a quarter longer)
	$(PYTEST) --cov --cov-report=

quick: $(INSTALLED)  ## run what needs no Ray, no browser and no patience (a minute)
	$(PYTEST) -m 'not (ray or browser or slow or whole)'

lint: $(INSTALLED)  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(INSTALLED)  ## measure NMF, the reader, Ray's overhead, the actor pool, safety and chaos, and take every cell a step (about 90 minutes on 2 cores)
	$(BIN)/python benchmarks/nmf.py --json docs/results/nmf.json
	$(BIN)/python benchmarks/readers.py --json docs/results/readers.json
	$(BIN)/python benchmarks/precision.py --json docs/results/precision.json
	$(BIN)/python benchmarks/overhead.py --json docs/results/overhead.json
	$(BIN)/python benchmarks/resilience.py --json docs/results/resilience.json
	$(BIN)/python benchmarks/random_weights.py --json docs/results/random-weights.json
	$(BIN)/python benchmarks/coverage.py --json docs/results/coverage.json
	$(BIN)/python benchmarks/power.py --json docs/results/power.json
	$(BIN)/python benchmarks/reliability.py --json docs/results/reliability.json
	$(BIN)/python benchmarks/pool.py --json docs/results/pool.json
	$(BIN)/python benchmarks/chaos.py --json docs/results/chaos.json
	$(BIN)/python benchmarks/chaos.py --s3 --json docs/results/chaos-s3.json
	$(PYTEST) -m whole
	$(PYTEST) --cov --cov-report=
	$(BIN)/python docs/generate.py

results: $(INSTALLED)  ## run the sweeps behind the README's results tables, renew tables and pictures (about 12 minutes on 2 cores)
	test -n "$$(ls runs/pictures 2>/dev/null)" || benchmarks/fetch_pictures.sh runs/pictures
	$(BIN)/python benchmarks/publish.py demo3 demo --set 'seeds=[0,1,2]'
	$(BIN)/python benchmarks/publish.py photos photos --set 'seeds=[0,1,2]' --set data.root=runs/pictures
	$(BIN)/python docs/generate.py

docs: $(INSTALLED)  ## update generated tables, the catalogue of `sweep list` and the picture of the imports
	$(BIN)/python docs/generate.py

package: $(INSTALLED)  ## build a wheel and run it in an empty environment (a few minutes, needs the network)
	benchmarks/package.sh $(BIN)/python

constraints: $(INSTALLED)  ## pin what .venv has in .ci/constraints.txt, for nodes and images
	$(BIN)/python .ci/constraints.py

audit: $(INSTALLED)  ## look up known vulnerabilities of the installed packages; without a network, say so
	$(BIN)/python .ci/audit.py

dashboard: $(INSTALLED)  ## open the dashboard on the sweeps in runs/
	$(BIN)/sweep dashboard

clean:  ## remove what the commands above made, except sweeps
	rm -rf .venv .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
