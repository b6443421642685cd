# One entry for people: `make help`. Each target installs what it needs; stamps in .venv make the second run quick.
# Needed beforehand: Python >= 3.11 with venv, Rust >= 1.88 (rustup), a C compiler and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
export CARGO_TARGET_DIR := $(CURDIR)/target
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# One interpreter for every build of pyo3, so that cargo and maturin do not undo each other's work.
export PYO3_PYTHON := $(CURDIR)/$(PY)

# The first Python on PATH that is new enough; `make PYTHON=/path/to/python setup` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v "$$p"; break; }; done)

# What a person may set.
ONLY ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
DEMO_ARGS ?=
SEEDS_IN_TEST := 200
SEEDS ?= $(SEEDS_IN_TEST)
SEED ?=
MINUTES ?= 1
INPUTS ?= 10000000

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
PROBE := benches/peers/probe
PROBE_SOURCES := $(wildcard $(PROBE)/src/*.rs) $(PROBE)/Cargo.toml $(PROBE)/Cargo.lock $(PROBE)/pyproject.toml
PYTHON_PATHS := $(wildcard python tests tools examples benches)
# Crates that run under AddressSanitizer: all that hold or parse raw bytes, without the Python binding.
ASAN_CRATES := page redo proto control store engine runtime

##@ Use it
.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.engine ## Make .venv, install the locked tools, build the engine into it (release)

.PHONY: demo
demo: $(VENV)/.engine ## Load TPC-H data, commit from threads, lose an AZ, kill -9, reopen, verify
	$(PY) examples/demo.py $(DEMO_ARGS)

##@ Check it
.PHONY: test
test: lint test-rust sim test-python ## Everything that must hold before a change lands (what CI runs)

.PHONY: test-rust
test-rust: $(VENV)/.dev ## Rust tests of the workspace
	cargo test --workspace --locked --exclude aurora-sim --exclude aurora-fuzz

.PHONY: test-python
test-python: $(VENV)/.engine ## Python tests and the examples; PYTEST_ARGS="-k name"
	$(PY) -m pytest $(PYTEST_ARGS)

.PHONY: sim
sim: ## The simulator and the fuzz targets: their tests, then SEEDS=n worlds from 0, or the one SEED=n
	@# Both build mistakes in, which nothing else may have.
	cargo test --locked -p aurora-sim -p aurora-fuzz
	@# Some hundreds of worlds are over before a release build is.
	cargo run --locked $(if $(filter $(SEEDS),$(SEEDS_IN_TEST)),,--release) -p aurora-sim -- \
		$(if $(SEED),--trace --seeds $(SEED),--seeds 0..$(SEEDS))

.PHONY: sim-mutations
sim-mutations: ## Each planted mistake until the simulator catches it, as a table
	cargo run --locked --release -p aurora-sim -- --mutations --seeds 0..2000

.PHONY: fuzz
fuzz: ## INPUTS=n wrong inputs for every decoder that reads disk or network; SEED=n for others
	cargo run --locked --release -p aurora-fuzz -- --inputs $(INPUTS) $(if $(SEED),--seed $(SEED))

.PHONY: soak
soak: $(VENV)/.engine ## MINUTES=n of workloads with checkers on a real disk, under db.faults and kill -9; SEED=n
	$(PY) tests/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: lint
lint: $(VENV)/.dev ## Formatting, clippy, ruff, mypy, and the direction of dependencies
	cargo fmt --check
	cargo fmt --check --manifest-path $(PROBE)/Cargo.toml
	$(PY) tools/check_layers.py
	cargo clippy --workspace --locked --lib --bins -- -D warnings
	@# Tests are not shipped: threads, clocks and temporary directories are theirs to use.
	cargo clippy --workspace --locked --tests -- -D warnings -A clippy::disallowed_methods
	$(PY) -m ruff check $(PYTHON_PATHS)
	$(PY) -m ruff format --check $(PYTHON_PATHS)
	$(PY) -m mypy
	$(PY) -m mypy --config-file= --strict tools

.PHONY: asan
asan: ## The Rust tests under AddressSanitizer (needs a nightly toolchain)
	RUSTFLAGS=-Zsanitizer=address cargo +nightly test --locked --target x86_64-unknown-linux-gnu --lib --tests \
		$(addprefix -p aurora-,$(ASAN_CRATES))

##@ Measure it
.PHONY: bench
bench: $(VENV)/.engine $(VENV)/.peers $(VENV)/.probe ## Ours beside the peers as one table and bench-report.json; ONLY=commit for one group
	$(PY) -m benches.run $(if $(ONLY),--only $(ONLY)) $(BENCH_ARGS)

.PHONY: bench-suite
bench-suite: $(VENV)/.engine ## The pytest-benchmark suites, for comparing releases (--benchmark-compare)
	$(PY) -m pytest benches --benchmark-only --benchmark-autosave $(PYTEST_ARGS)

##@ Work on it
.PHONY: fmt
fmt: $(VENV)/.dev ## Format Rust and Python
	cargo fmt
	cargo fmt --manifest-path $(PROBE)/Cargo.toml
	$(PY) -m ruff check --fix-only $(PYTHON_PATHS)
	$(PY) -m ruff format $(PYTHON_PATHS)

.PHONY: wheel
wheel: $(VENV)/.dev ## Build the wheel into dist/ (abi3, link-time optimised)
	$(VENV)/bin/maturin build --profile wheel --locked --out dist

.PHONY: docs
docs: $(VENV)/.docs ## Render docs/ into site/
	$(PY) -m mkdocs build --strict

.PHONY: lock
lock: $(VENV)/.lock ## Resolve requirements/*.in anew into exact versions
	for set in requirements/dev requirements/docs benches/peers/requirements; do \
		$(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url \
			--no-emit-find-links --custom-compile-command 'make lock' $$set.in -o $$set.txt; done

.PHONY: clean
clean: ## Remove everything that was built or installed here
	rm -rf target .venv dist site demo-data .bench-data .benchmarks .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f bench-report.json python/aurora_engine/*.so
	find $(PYTHON_PATHS) -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: what is installed in .venv, and from what.
$(PY):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none is on PATH (PYTHON=/path/to/python names one)" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "Rust 1.88 or newer is needed: no cargo on PATH (see https://rustup.rs)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.dev: requirements/dev.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch $@

$(VENV)/.engine: $(VENV)/.dev pyproject.toml $(RUST_SOURCES)
	$(VENV)/bin/maturin develop --release --locked
	@touch $@

$(VENV)/.peers: benches/peers/requirements.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
	@touch $@

$(VENV)/.probe: $(PROBE_SOURCES) $(VENV)/.dev
	$(VENV)/bin/maturin develop --release --locked --quiet -m $(PROBE)/Cargo.toml
	@touch $@

$(VENV)/.docs: requirements/docs.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

$(VENV)/.lock: | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	@touch $@
