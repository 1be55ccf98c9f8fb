# Everything is installed into .venv, once, and again when what it is made of changes. Works from a fresh clone.
#
#   make demo                     the main job on the data and model that come with pyneuro, in about MINUTES minutes
#   make demo DATA=pairs.jsonl    the same on a file or a Hugging Face id
#   make study                    the whole study on them: locate, weaken, counterfactual, training; each beside its control
#   make test | test-native | lint | doctor | clean
#
# TORCH is what pip is asked for. On Linux the default release may bring gigabytes of CUDA libraries that pyneuro does
# not use; where the index can be reached, this takes the small build instead:
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
MINUTES ?= 6
DATA    ?=
PYTEST  ?=

VENV    := .venv
BIN     := $(VENV)/bin
STAMPS  := $(VENV)/stamps
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
NATIVE  := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)
SOURCES := $(NATIVE) README.md LICENSE $(shell find pyneuro -type f -not -name '*.py[co]' -not -name '*.so')

# Reading from the hub needs one extra more.
DEMO    := $(if $(filter-out embedded $(wildcard $(DATA)),$(DATA)),demo-hub,demo)
EXTRAS_demo     := figures
EXTRAS_demo-hub := figures,hub
EXTRAS_study    := figures,train,bias

# Threads that spin while they wait slow a busy machine several times over, and gain little on an idle one.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo study test test-native lint doctor clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(STAMPS)/$(DEMO)
	$(BIN)/pyneuro demo --minutes $(MINUTES) $(if $(DATA),--data "$(DATA)")

# Goes on where an earlier one was stopped.
study: $(STAMPS)/study
	$(BIN)/pyneuro study --out study-results --resume

# From the source tree, with the kernels built into it, so that an edited file is a tested file.
test: $(STAMPS)/dev
	$(BIN)/python -m pytest $(PYTEST)

# The kernels of the CPU and, on the host, of the device, under sanitizers; then what nvcc makes of the latter, where there is nvcc.
test-native: $(STAMPS)/dev
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/native/run
	tests/native/run_emulator_self_test
	tests/native/run_device_kernels
	$(if $(shell command -v nvcc),$(PIP) install --no-deps nvidia-cutlass==4.2.0.0)
	PATH="$(CURDIR)/$(BIN):$$PATH" python tests/native/check_device_build.py

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

doctor: $(STAMPS)/dev
	$(BIN)/pyneuro doctor

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pyneuro needs Python 3.11 or newer; set PYTHON")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	@mkdir -p $(STAMPS) && touch $@

# The last of the two ways to install is the one in force. A build folder remembers the tools it was configured with,
# and pip removes those.
$(STAMPS)/demo $(STAMPS)/demo-hub $(STAMPS)/study: $(STAMPS)/venv $(SOURCES)
	@rm -rf build
	$(PIP) install '.[$(EXTRAS_$(@F))]'
	@rm -f $(STAMPS)/dev && touch $@

$(STAMPS)/dev: $(STAMPS)/venv $(NATIVE)
	@rm -rf build
	$(PIP) install -e '.[figures,hub,test,lint]'
	@rm -f $(STAMPS)/demo $(STAMPS)/demo-hub $(STAMPS)/study && touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info pyneuro/_native*.so .coverage .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
