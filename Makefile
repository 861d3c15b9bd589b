# make demo     sets everything up and runs the main job: tiny model and data, CPU, 1 to 3 minutes
# make install  sets everything up: .venv, about 3 minutes and 4 GB for a CPU
# make test     sets everything up and runs the tests
# make soak     sets everything up and kills training runs, 200 times (an hour): is anything lost?
# make check    formatting, lint, types, shell scripts
# make lock     resolve the dependencies again (needs uv)

PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# With an NVIDIA GPU the same commands take the GPU wheels.
PLATFORM ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
LOCK = requirements/$(PLATFORM).txt
INSTALLED = $(VENV)/.installed-$(PLATFORM)

.PHONY: help demo test soak check lock install
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make /make /p' Makefile

demo: $(INSTALLED)
	$(BIN)/python -m launch.demo --output_dir outputs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

# Kept: the uninterrupted runs, and those that ended otherwise.
SOAK := outputs/soak-$(shell date +%Y%m%d-%H%M%S)

soak: $(INSTALLED)
	$(BIN)/python -m tests.faults.soak $(SOAK) --kills 200 --output $(SOAK).json

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck slurm/*.sh launch/*.sh .ci/run

install: $(INSTALLED)

$(INSTALLED): $(LOCK) pyproject.toml launch/install.sh
	PYTHON=$(PYTHON) launch/install.sh $(VENV) $(PLATFORM)
	touch $@

# The CPU lock leaves out the three packages that PyPI has as CUDA builds only; they are no need of
# ours, and `import transformers` fails beside a CPU torch when they are there.
lock:
	uv pip compile pyproject.toml --extra cpu --extra dev --python-version 3.11 \
		--excludes requirements/excludes.txt --no-header --no-annotate --no-emit-find-links \
		--no-emit-index-url -o requirements/cpu.txt
	PIP_FIND_LINKS= UV_FIND_LINKS= uv pip compile pyproject.toml --extra gpu --extra dev \
		--python-version 3.11 --python-platform x86_64-unknown-linux-gnu --no-header --no-annotate \
		--no-emit-find-links --no-emit-index-url -o requirements/gpu.txt
