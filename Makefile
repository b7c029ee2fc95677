# Every step of CI is a target here; each target is a command or two that anyone can run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run demo example test unit test-faults fuzz soak test-gpu grpcio bench bench-quick lint types imports protos protos-check clients-install clients-test format \
  clean generated

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

$(VENV)/.installed: pyproject.toml constraints.txt tools/install.py
	@$(PYTHON) tools/install.py $(VENV)
	@touch $@

run: $(VENV)/.installed ## Install, package the digits example, serve it, and predict once; Ctrl-C ends it
	@python examples/digits/demo.py --keep-serving

demo: $(VENV)/.installed ## The same, and exit
	@python examples/digits/demo.py

example: $(VENV)/.installed ## Train the digits example again and print its accuracy
	python examples/digits/train.py

test: lint types imports protos-check unit grpcio ## Everything that CI checks

build/tritonclient: tools/triton_env.py | $(VENV)/.installed
	python tools/triton_env.py

build/torch-model-archiver: tools/archiver_env.py | $(VENV)/.installed
	python tools/archiver_env.py

unit: $(VENV)/.installed build/tritonclient build/torch-model-archiver ## The tests
	python -m pytest -q -n 2 --dist loadfile

test-faults: $(VENV)/.installed ## A long load with faults of every kind, and a check of each call, 15 minutes
	PYTHONPATH=tests python -m history --seconds 80

fuzz: $(VENV)/.installed ## A million arbitrary and mutated messages, archives and connections, 4 minutes
	PYTHONPATH=tests python -m fuzz

soak: $(VENV)/.installed ## Half an hour of load with faults: what grows?
	PYTHONPATH=tests python -m history.soak

test-gpu: $(VENV)/.installed ## The tests that need a CUDA device
	python -m pytest -q -m gpu

grpcio: $(VENV)/.installed ## The fast lane on the oldest and newest grpcio
	python tools/check_grpcio.py

bench: $(VENV)/.installed ## The whole benchmark beside other servers, about an hour; says what it installs
	$(PYTHON) -m benchmarks.setup
	.bench-venv/harness/bin/python -m benchmarks run

bench-quick: $(VENV)/.installed ## The core of it, 3 minutes once installed
	$(PYTHON) -m benchmarks.setup
	.bench-venv/harness/bin/python -m benchmarks run --quick

lint: $(VENV)/.installed
	ruff format --check .
	ruff check .

types: $(VENV)/.installed
	mypy

imports: $(VENV)/.installed
	lint-imports --no-logo

format: $(VENV)/.installed ## Format the code
	ruff format . && ruff check --fix . && buf format -w

generated: $(VENV)/.installed
	rm -rf build/gen && buf generate -o build/gen

protos: generated ## Generate all stubs from protos/
	for tree in v1 compat; do rm -rf servegrpc/$$tree && cp -r build/gen/servegrpc/$$tree servegrpc/$$tree || exit 1; done
	$(MAKE) --no-print-directory -C clients stubs

protos-check: generated ## Lint the protos; compare them with the released baseline and the stubs with the protos
	buf lint && buf format -d --exit-code
	buf breaking --against protos/baseline/v1.binpb
	for tree in v1 compat; do diff -ru --exclude=__pycache__ build/gen/servegrpc/$$tree servegrpc/$$tree || exit 1; done
	$(MAKE) --no-print-directory -C clients stubs-check

clients-install: $(VENV)/.installed ## Install what the programs in clients/ need, on Debian 12, as root
	clients/install.sh

clients-test: $(VENV)/.installed build/tritonclient ## Build and run the programs in clients/; skips languages that are not installed
	python -m pytest -q tests/clients

clean: ## Remove what was built and installed
	rm -rf $(VENV) build clients/typescript/node_modules clients/typescript/dist clients/typescript/web/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
