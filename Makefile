# `make help` lists the targets. All of them make .venv first if it is not there.

PYTHON ?= python3
# Relative, since a space in the project's path would divide a target in two.
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

# Nothing here reports to anybody.
export DVC_NO_ANALYTICS := 1
export FIFTYONE_DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
# DVC asks for the user's name, and in a container there may be none.
export USER ?= $(shell id -u)
export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

.DEFAULT_GOAL := help
.PHONY: help install repro pipeline mlflow browse seeds choosing study test check docs format torture kills bench audit sbom lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv from the locked requirements

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selftrain needs Python 3.11 or newer; name one with PYTHON=…")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/bin/uv || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@# Without bytecode, timm takes 7 s to import instead of 3.5, mlflow 3 instead of 1.5, in every process.
	@# On a machine whose disk stands still for a while, uv's own limits (60 s a file, 30 s a download) end the install.
	UV_COMPILE_BYTECODE_TIMEOUT=600 UV_HTTP_TIMEOUT=300 uv pip install --quiet --compile-bytecode --require-hashes -r requirements.txt
	uv pip install --quiet --no-deps --editable .
	@touch $@

repro: install ## Reproduce params.yaml: images to three Noisy Student rounds, and print their table
	@selftrain check
	dvc repro
	@selftrain summary

pipeline: install ## Reproduce one of pipelines/: make pipeline NAME=self_training
	@selftrain check --pipeline $(NAME)
	dvc repro pipelines/$(NAME)/dvc.yaml
	@test ! -d evaluation/$(NAME) || selftrain summary --pipeline $(NAME)

mlflow: install ## Serve MLflow on 127.0.0.1:5000
	selftrain mlflow

browse: install ## Open the pseudo-labels in FiftyOne on 127.0.0.1:5151
	selftrain browse

seeds: install ## Reproduce over five seeds, for the README's table; 15 minutes
	python benchmarks/seeds.py $(PIPELINES)

choosing: install ## Train every algorithm over seeds, for docs/choosing.md; 70 minutes
	python benchmarks/choosing.py

study: install ## Run studies of pipelines/*/studies.yaml: make study NAME="noise iterations"
	selftrain study $(NAME)

test: install ## Run the tests, two files at a time
	.ci/in_memory pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install ## Lint, check format, types, imports between rooms, and build the docs
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --site-dir .site

docs: install ## Serve the documentation on 127.0.0.1:8000
	NO_MKDOCS_2_WARNING=1 mkdocs serve --dev-addr 127.0.0.1:8000

format: install ## Format the code
	ruff format .
	ruff check --fix .

torture: install ## Damage files of every kind, and count what is not noticed; two minutes
	python benchmarks/torture.py

kills: install ## Kill trainings and dvc repro 200 times, and compare how they end; an hour
	python benchmarks/kills.py

bench: install ## Hold every stage's speed against ceilings and peers, for docs/performance.md; 20 minutes
	@for stage in ingest hashes batches predict training processes selecting scale start; do \
	  QUICK=$(QUICK) python benchmarks/speed/$$stage.py || exit 1; done

audit: install ## Look for known vulnerabilities of the locked libraries; needs the internet
	uv tool run pip-audit --require-hashes --disable-pip -r requirements.txt

sbom: install ## Write the bill of materials to .sbom.json (CycloneDX)
	uv tool run --from cyclonedx-bom cyclonedx-py environment $(VENV) --of JSON -o .sbom.json

lock: install ## Compile requirements.txt from pyproject.toml, and list the licences
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev --extra all \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	python .ci/licences.py

clean: ## Remove what the pipelines made; not your images and answers, not .venv, not DVC's cache
	@# data/digits stays: people's answers are in it, and the stage makes the rest anew where a parameter changed.
	rm -rf data/code data/corpus data/noisy_student_lite data/domain_shift data/domain_shift_images models \
	  predictions selections evaluation footprint replication review reports robustness robustness_figures mlruns \
	  mlflow.db .selftrain .site
