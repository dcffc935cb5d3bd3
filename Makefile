# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
SONG ?=
OUT ?= out
BUF_VERSION := 1.75.0
BUF := build/buf/node_modules/.bin/buf
LAST_TAG ?= $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)
TRITON_VERSION := 0.7.0
STAGES := separator restorer mixer master

# Modules in the order of their names: the last ones are units, which leave neither process alone for long.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: help setup run test coverage acceptance lint breaking protos bench models triton clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# Kernels are compiled here, by one process at a time: several that fill numba's cache at once can spoil it.
.venv/ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "Outboard needs Python 3.11 as '$(PYTHON)'; set PYTHON=... to another name of it"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --no-deps -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --editable .
	@echo "compiling the kernels (once)"
	@for name in $(STAGES); do $(BIN)/python -c "import services.$$name.__main__ as stage; stage.warm_up()" || exit 1; done
	@touch $@

# Only the yardstick of some tests and benchmarks (auraloss) stands on torch. It is installed by itself, so that a CPU wheel is taken where
# one is offered.
.venv/torch: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	@touch $@

# The real Triton server, apart from the environment: its package pins numpy<2. The stub must be that of this Python.
.triton/ready: | .venv/ready
	@echo "fetching the Triton server (55 MB, once)"
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --target .triton nvidia-pytriton==$(TRITON_VERSION)
	version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') && cd .triton/pytriton/tritonserver && \
		cp python_backend_stubs/$$version/triton_python_backend_stub backends/python/
	chmod +x .triton/pytriton/tritonserver/{bin/tritonserver,backends/python/triton_python_backend_stub}
	@touch $@

triton: .triton/ready ## the real Triton server, in .triton

# Neural engines and their tests; a run without weights needs none of it.
.venv/models: .venv/torch requirements-models.lock
	$(BIN)/uv pip install --quiet --no-deps -r requirements-models.lock
	@touch $@

models: .venv/models ## what the neural engines need; then: .venv/bin/outboard models pull htdemucs_ft

setup: .venv/ready ## make the environment in .venv

run: .venv/ready ## master a song: make run [SONG=path] [OUT=folder]
	$(BIN)/outboard master $(if $(SONG),"$(SONG)",--demo) -o "$(OUT)"

test: .venv/models .triton/ready ## all tests, under 30 minutes on 2 cores
	$(TESTS)

coverage: .venv/models .triton/ready ## the same, and which lines they run
	$(TESTS) --cov --cov-report=term:skip-covered

acceptance: .venv/models ## the full matrices on whole songs
	$(BIN)/python -m pytest -m acceptance

lint: .venv/models build/googleapis build/buf ## ruff, import-linter, mypy, buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BUF) lint
	$(MAKE) --no-print-directory breaking

# The tagged contract is laid out whole: its google protos are in no commit.
breaking: build/googleapis build/buf ## refuse what breaks clients of the last tag's contract
	@rm -rf build/last && if [ -z "$(LAST_TAG)" ]; then echo "no tag v* yet: nothing that the contract could break"; else \
		mkdir -p build/last/build && git archive $(LAST_TAG) protos buf.yaml | tar -x -C build/last && \
		cp -r build/googleapis build/last/build/ && echo "against the contract of $(LAST_TAG)" && $(BUF) breaking --against build/last; fi

protos: .venv/ready build/googleapis ## generate outboard/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos -I build/googleapis --python_out=. --grpc_python_out=. \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:. \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:. \
		protos/outboard/v1/*.proto

build/googleapis: .venv/ready
	mkdir -p $@/google
	packages=$$($(BIN)/python -c 'import google.api; print(list(google.api.__path__)[0])')/.. && cp -r "$$packages"/{api,rpc} $@/google/
	find $@ -type f ! -name '*.proto' -delete
	find $@ -type d -empty -delete

build/buf:
	npm install --silent --no-audit --no-fund --prefix build/buf @bufbuild/buf@$(BUF_VERSION)

bench: .venv/models .triton/ready ## every benchmark, quick
	for name in benchmarks/*.py; do [ "$$name" = benchmarks/__init__.py ] || $(BIN)/python -m $$(echo $${name%.py} | tr / .) --quick; done

clean: ## remove what was built
	rm -rf .venv .triton build out
