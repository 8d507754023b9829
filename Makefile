# Everything works from any directory (make -C), twice in a row, and offline apart from the package registry.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
DEMO := bundles/mni152_mri_segmentation
OUTPUT := $(DEMO)/output/unet_xattnres
BUNDLE := $(BIN)/python -m monai.bundle run --bundle_root $(DEMO)

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.demo  ## train, evaluate and infer on simulated brain MRI, offline, in minutes
	$(BUNDLE) --config_file $(DEMO)/configs/train.json
	$(BUNDLE) --config_file "['$(DEMO)/configs/train.json','$(DEMO)/configs/evaluate.json']" --checkpoint $(OUTPUT)/checkpoints/model.pt
	$(BUNDLE) --config_file $(DEMO)/configs/inference.json --checkpoint $(OUTPUT)/checkpoints/model.pt
	$(BIN)/python -m xattnres_monai report $(OUTPUT)

test: $(VENV)/.dev lint  ## the fast suite with its coverage
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --cov --cov-report term

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) '.[demo]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) '.[demo,export,tracking,dev]'
	touch $@

clean:  ## results of runs; the environment stays
	rm -rf bundles/*/output .pytest_cache .mypy_cache .ruff_cache .coverage
