# The project's commands. Each installs what it needs first (see .ci/install-deps), quietly and only when missing.
#
#   make demo                  the example shop in a mesh on this machine, for some seconds; leaves nothing behind
#   make demo KEEP=1           the same, left running
#   make test                  lint, short fuzzing, and every test
#   make lint                  structure, format, clippy, licences
#   make fuzz FUZZ_SECONDS=60  every fuzz target, that long each

SHELL := /bin/bash
FUZZ_SECONDS ?= 5
KEEP ?=

.PHONY: help build demo test lint fuzz

help:
	@sed -n 's/^#   //p' Makefile

build:
	@.ci/install-deps build
	cargo build --workspace

demo:
	@.ci/install-deps build demo
	cargo build --workspace --bins
	@KEEP=$(KEEP) examples/shop/demo.sh

# The tests come last: their closing lines are the result.
test:
	@.ci/install-deps build lint fuzz demo test
	@.ci/timed lint .ci/lint
	@.ci/timed fuzz fuzz/run $(FUZZ_SECONDS)
	@.ci/timed build cargo build --workspace --all-targets
	@.ci/timed tests cargo test --workspace --no-fail-fast

lint:
	@.ci/install-deps build lint
	@.ci/lint

fuzz:
	@.ci/install-deps build fuzz
	@fuzz/run $(FUZZ_SECONDS)
