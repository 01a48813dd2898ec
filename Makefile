# Every command that a developer or CI runs.
.DEFAULT_GOAL := help
.PHONY: help setup build dist dev test test-frameworks check lint fmt pure fuzz torture torture-edge bench bench-peers bench-fleet bench-build

# The tools that set-up fetched come first, so that a build finds the same ones everywhere.
export PATH := $(CURDIR)/.tools/bin:$(PATH):$(HOME)/.cargo/bin
# One profile and one target folder for everything that is tested, so that nothing is compiled twice.
CARGO := cargo
RELEASE := --release --locked
# What is installed, and what is measured.
DIST := --profile dist --locked
# Real folders to deploy: few files, many files, large files.
FOLDERS := swagger-ui-dist @fortawesome/fontawesome-free monaco-editor
PACKAGES := swagger-ui-dist@5.35.0 @fortawesome/fontawesome-free@7.3.1 monaco-editor@0.57.0
BINARIES := --package helix-cli --package helix-origin --package helix-edge --package helix-build --bins

# How many tests of a program run at once: most wait for processes and sockets, more than two cores' worth.
TEST_THREADS := RUST_TEST_THREADS=6

# Where a PostgreSQL server's programs may be, as tests look for them.
INITDB := /usr/lib/postgresql/*/bin/initdb /usr/local/pgsql/bin/initdb /usr/pgsql/bin/initdb

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: ## fetch build tools and nats-server into .tools
	@python3 deploy/setup/tools.py

build: setup ## build helix, helix-origin, helix-edge and helix-build
	$(CARGO) build $(RELEASE) $(BINARIES)

dist: setup ## build them as they are installed, into target/dist: slower to build, faster to run
	$(CARGO) build $(DIST) $(BINARIES)

dev: build ## start everything on this machine and deploy the example site
	target/release/helix dev

# Always the whole workspace: a part of it has dependencies with other features, which are then built twice. What has tests over sockets
# has its program built with them, which is all four.
test: pure ## set up and run every test
	@python3 deploy/setup/tools.py --tests
	$(TEST_THREADS) $(CARGO) test $(RELEASE) --workspace --no-fail-fast
	@if [ -n "$$(ls -d $(INITDB) 2>/dev/null)" ]; then \
		HELIX_TEST_STORE=postgres $(TEST_THREADS) $(CARGO) test $(RELEASE) --workspace --lib --test api --test cutover --no-fail-fast; \
	else echo "skipped: origin's tests on PostgreSQL, which is not installed: apt install postgresql"; fi
	$(MAKE) fuzz FUZZ_SECONDS=20

test-frameworks: setup ## build real projects of many frameworks, which takes minutes and the npm registry
	$(CARGO) test $(RELEASE) --package helix-build --test builds -- --ignored --nocapture frameworks

check: setup lint pure ## format, lints, purity, unit tests and architecture: the fast loop
	$(CARGO) test $(RELEASE) --workspace --lib --bins
	$(CARGO) test $(RELEASE) --package helix-tests --test architecture

lint: setup ## format and clippy, warnings are errors
	$(CARGO) fmt --all --check
	cd fuzz && $(CARGO) fmt --check
	$(CARGO) clippy $(RELEASE) --workspace --all-targets -- --deny warnings

fmt: ## format
	$(CARGO) fmt --all
	cd fuzz && $(CARGO) fmt

pure: setup ## build routing alone, as no_std: the compiler refuses a clock, a file or a socket
	$(CARGO) check $(RELEASE) --package helix-routing --no-default-features

# Counters for every branch and comparison; what libFuzzer needs, and the stable toolchain can do.
COVERAGE := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_TARGETS := $(patsubst fuzz/targets/%.rs,%,$(wildcard fuzz/targets/*.rs))
FUZZ_SECONDS ?= 60
# How many targets run at once.
FUZZ_JOBS ?= 2

fuzz: setup ## fuzz every target for FUZZ_SECONDS each, from the saved corpus on
	cd fuzz && RUSTFLAGS="$(COVERAGE)" $(CARGO) build $(RELEASE) --target $(HOST) --target-dir ../target/fuzz
	@mkdir -p target/fuzz/crashes $(FUZZ_TARGETS:%=target/fuzz/found/%)
	printf '%s\n' $(FUZZ_TARGETS) | xargs -P $(FUZZ_JOBS) -I{} env target/fuzz/$(HOST)/release/{} \
		-max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -verbosity=0 \
		-artifact_prefix=target/fuzz/crashes/{}- target/fuzz/found/{} fuzz/corpus/{}

torture-edge: setup ## ten thousand slow clients five times each way and every flood, with figures; on a machine left alone
	HELIX_PAIRS=5 $(CARGO) test $(RELEASE) --package helix-edge --test abuse -- --nocapture --test-threads=1

# Every fault of tests/torture, the model's largest world, and ten times the seeds of the simulation.
TORTURE_REPORT := $(CURDIR)/bench/results/torture.md
torture: build ## kill, pause, cut off, fill up and skew a fleet, for an hour; into bench/results/torture.md
	@python3 deploy/setup/tools.py --tests
	printf '%s\n' '# What a fleet lived through' '' '`make torture`, on the state it was committed with. Requests are those of one client for each edge.' '' \
		'| fault | requests | lost connections | wrong answers | whole again after |' '| --- | --- | --- | --- | --- |' > $(TORTURE_REPORT)
	HELIX_TORTURE_REPORT=$(TORTURE_REPORT) $(CARGO) test $(RELEASE) --workspace --test torture -- --include-ignored --test-threads=1
	$(CARGO) test $(RELEASE) --workspace --test model -- --ignored
	HELIX_SIM_SEEDS=100000 $(CARGO) test $(RELEASE) --workspace --test rollout_simulation

bench: bench-peers bench-fleet ## measure the edge beside other servers, then a fleet

bench-build: setup
	$(CARGO) build $(DIST) $(BINARIES) --package helix-bench

bench-peers: bench-build ## CPU per request beside nginx, haproxy, caddy and traefik, into bench/results
	@python3 deploy/setup/tools.py --bench
	target/dist/helix-bench peers
	target/dist/helix-bench workers
	target/dist/helix-bench peer-hosts

bench-fleet: bench-build ## measure a fleet on this machine; the real folders come from npm packages, so it needs Node
	npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix .tools/bench $(PACKAGES)
	target/dist/helix-bench routes
	target/dist/helix-bench memory
	target/dist/helix-bench idle
	target/dist/helix-bench folders $(foreach folder,$(FOLDERS),.tools/bench/node_modules/$(folder))
	target/dist/helix-bench redeploys
	target/dist/helix-bench pushes
	target/dist/helix-bench cutovers
	target/dist/helix-bench rollbacks
	target/dist/helix-bench rollbacks-under-load
	target/dist/helix-bench edges --count 200
	target/dist/helix-bench edges --count 1000
	target/dist/helix-bench hosts
