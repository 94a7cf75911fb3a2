# `make help` lists the targets. Each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each worker runs PyTorch with one thread (tests/conftest.py); a module's tests share its servers and graphs.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
STAMP := $(VENV)/.ready

.PHONY: help setup demo serve test test-unit test-heavy check generated bench train-emoji train-translator evaluate-emoji clean

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## Create .venv with everything for serving and developing

$(STAMP): pyproject.toml client/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else f"make: Python 3.11 to 3.13 is needed, {sys.executable} is {sys.version.split()[0]}; set PYTHON=…")'
	@echo 'Installing into $(VENV): some minutes, 2.5 GB'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server,oss,s3,train,bench,dev]' --editable 'client[pil,triton]'
	touch $@

demo: setup ## Start a server, generate an image, stop the server, print the image's path
	$(BIN)/python -m triton_diffusers demo

serve: setup ## Serve models/emoji (ARGS="--model-dir … --http-port …" for another model or port)
	$(BIN)/triton-diffusers serve $(ARGS)

test: setup ## All checks and tests that a change has to pass, on two cores
	$(MAKE) --no-print-directory check
	$(PYTEST) -m 'not heavy'

test-unit: setup ## The fast tests, on two cores: no server, no compiled graphs
	$(PYTEST) -m 'not triton and not compile and not heavy'

test-heavy: setup ## The tests that take minutes each: soaks and thousands of hostile requests
	$(BIN)/python -m pytest -m heavy

check: setup ## Lint, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generated: setup ## Write every config.pbtxt, docs/reference.md and the client's tables
	$(BIN)/python -m tools.model_config
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.client_files

bench: setup ## Run the benchmarks, on an otherwise idle machine
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.lora
	$(BIN)/python -m benchmarks.controlnet
	$(BIN)/python -m benchmarks.translator
	$(BIN)/python -m benchmarks.tables

train-emoji: setup ## Train the embedded model from the npm packages (hours; resumes)
	$(BIN)/python -m training.emoji all

train-translator: setup ## Train the embedded translator from the npm packages (resumes)
	$(BIN)/python -m training.translator all

evaluate-emoji: setup ## Measure the embedded model: JSON and a sheet
	$(BIN)/python -m training.emoji evaluate

clean: ## Remove the output of the other targets
	rm -rf $(VENV) result results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
