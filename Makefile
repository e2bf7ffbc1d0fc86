# `make help` lists the targets. All of them make .venv first if it is not there.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(VENV)

# Nothing here reports to anybody.
export DVC_NO_ANALYTICS := 1
export FIFTYONE_DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

.DEFAULT_GOAL := help
.PHONY: help install repro pipeline mlflow browse seeds choosing study test check format bench lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv from the locked requirements

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selftrain needs Python 3.11 or newer; name one with PYTHON=…")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/bin/uv || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@# Without bytecode, timm takes 7 s to import instead of 3.5, mlflow 3 instead of 1.5, in every process.
	uv pip install --quiet --compile-bytecode --require-hashes -r requirements.txt
	uv pip install --quiet --no-deps --editable .
	@touch $@

repro: install ## Run the main job: images to three Noisy Student rounds, then its table
	@selftrain check
	dvc repro
	@selftrain summary

pipeline: install ## Run one of pipelines/: make pipeline NAME=self_training
	@selftrain check --params pipelines/$(NAME)/params.yaml
	dvc repro pipelines/$(NAME)/dvc.yaml
	@test ! -d evaluation/$(NAME) -o $(NAME) = robustness || \
	  selftrain summary --evaluation evaluation/$(NAME) --params pipelines/$(NAME)/params.yaml

mlflow: install ## Compare the runs in MLflow, on 127.0.0.1:5000
	selftrain mlflow

browse: install ## Look at the pseudo-labels in FiftyOne, on 127.0.0.1:5151
	selftrain browse

seeds: install ## The README's five-seed table, about 15 minutes on 2 cores
	python benchmarks/seeds.py $(PIPELINES)

choosing: install ## Every algorithm over seeds, for docs/choosing.md, about 70 minutes on 2 cores
	python benchmarks/choosing.py

study: install ## Run one study of pipelines/*/studies.yaml: make study NAME=noise
	selftrain study $(NAME)

test: install ## Run the tests, two files at a time
	pytest -n 2 --dist loadfile

check: install ## Lint, format and types
	ruff check .
	ruff format --check .
	mypy

format: install ## Format the code
	ruff format .
	ruff check --fix .

bench: install ## Run the benchmarks: ratios against a ceiling or a peer
	python benchmarks/throughput.py

lock: install ## Compile requirements.txt from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --extra export \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.txt

clean: ## Remove everything that the pipelines made; not your images, not .venv, not the DVC cache
	rm -rf data/corpus data/digits data/noisy_student_lite models predictions selections evaluation review report reports robustness mlruns mlflow.db .selftrain
