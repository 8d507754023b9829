# Every target works from any directory (make -C), can be repeated, and needs no network but the package registry.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
DEMO := bundles/mni152_mri_segmentation
LABEL := .venv-label
LABEL_INSTALL = $(LABEL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-label.txt
PRETRAINED := $(patsubst bundles/%/models/model.pt,%,$(wildcard bundles/*/models/model.pt))
MONAILABEL := $(LABEL)/bin/python -m monailabel.main
MODELS := $(LABEL)/apps/monaibundle/model
SIMULATED := $(LABEL)/studies
STUDIES ?= $(SIMULATED)/imagesTr
PORT ?= 8000
OUTPUT := $(DEMO)/output/unet_xattnres
BUNDLE := $(BIN)/python -m monai.bundle run --bundle_root $(DEMO)
GPU_PYTHON ?= $(BIN)/python
GPU_OPTIONS = $(if $(PIECES),--pieces $(PIECES)) $(if $(DEVICE),--device $(DEVICE)) $(if $(TINY),--tiny)

.PHONY: demo test test-slow test-label label gpu lint clean

demo: $(VENV)/.demo  ## train, evaluate and infer on simulated brain MRI, offline, in minutes
	$(BUNDLE) --config_file $(DEMO)/configs/train.json
	$(BUNDLE) --config_file "['$(DEMO)/configs/train.json','$(DEMO)/configs/evaluate.json']" --checkpoint $(OUTPUT)/checkpoints/model.pt
	$(BUNDLE) --config_file $(DEMO)/configs/inference.json --checkpoint $(OUTPUT)/checkpoints/model.pt
	$(BIN)/python -m xattnres_monai report $(OUTPUT)

test: $(VENV)/.dev lint  ## run the linters and the fast tests, and measure coverage
	$(BIN)/python -m pytest -m "not slow and not label" --numprocesses 2 --cov --cov-report term

test-slow: $(VENV)/.dev  ## run the slow tests, and the property tests on new random examples
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest --hypothesis-profile thorough tests/properties

test-label: $(VENV)/.dev $(LABEL)/.ready  ## test the pretrained bundles in a real MONAI Label server
	$(BIN)/python -m pytest -m label -s tests/label

label: $(LABEL)/.ready $(VENV)/.demo  ## start MONAI Label on http://127.0.0.1:$(PORT): make label STUDIES=<folder of images>
	mkdir -p $(MODELS)
	for bundle in $(PRETRAINED); do  # never overwrite a copy: it may hold weights that annotators trained
		test -e $(MODELS)/$$bundle || {
			$(BIN)/python -m xattnres_monai bundles pack $$bundle --output $(LABEL)/packed
			$(BIN)/python -m zipfile -e $(LABEL)/packed/$${bundle}_v*.zip $(MODELS)
		}
	done
	test "$(STUDIES)" != $(SIMULATED)/imagesTr || $(BIN)/python -c \
		"from xattnres_monai.data.readers.mni152 import simulate; simulate('$(SIMULATED)', labelled=1)"
	$(MONAILABEL) start_server --app $(LABEL)/apps/monaibundle --studies "$(STUDIES)" --host 127.0.0.1 \
		--port $(PORT) --conf models "$$(echo $(PRETRAINED) | tr ' ' ,)" --conf zoo_source local --conf sam2 false

gpu: OUTPUT := gpu
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/.demo)  ## measure a GPU: docs/gpu.md
	$(GPU_PYTHON) -m xattnres_monai gpu $(GPU_OPTIONS) --output $(OUTPUT)

$(LABEL)/.ready: constraints-label.txt pyproject.toml tests/label/torchvision_operators.py
	$(PYTHON) -m venv $(LABEL)
	$(LABEL_INSTALL) monailabel --editable .
	$(LABEL)/bin/python -c "import torchvision" 2> /dev/null || {  # a CUDA build does not load beside a CPU torch
		site=$$($(LABEL)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
		cp tests/label/torchvision_operators.py $$site
		echo "import torchvision_operators" > $$site/torchvision_operators.pth
	}
	test -e $(LABEL)/apps/monaibundle || $(MONAILABEL) apps --download --name monaibundle --output $(LABEL)/apps
	touch $@

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

clean:  ## delete the results of runs, but keep the environment
	rm -rf bundles/*/output mlruns .pytest_cache .mypy_cache .ruff_cache .coverage
