# Each target has one line of help behind `##`; plain `make` prints them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# Tools of ours live under target/, so that nothing is installed into anybody's home.
TOOLS := target/tools
SQLX := $(TOOLS)/bin/cargo-sqlx
PYTHON := $(TOOLS)/python/bin
WITH_DATABASE := cargo run --quiet --package devstack --example with_database --
# One choice of packages for every build: another has other features, and builds half of the dependencies again.
DRILL := cargo build --release --workspace --bins && PAYWRIGHT_BIN_DIR=target/release target/release/drill
FUZZ := cargo test --workspace --test fuzz

.PHONY: help run test test-postgres ci fuzz lint sqlx openapi test-corpora race proof bench drill test-images test-deploy

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: ## Start everything and say what to try next; Ctrl-C stops it all
	cargo build --workspace --bins
	@exec target/debug/devstack

# Most tests wait for processes of theirs, and compute little.
test test-postgres: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
test: ## The whole test suite, against a real PostgreSQL that is found or installed
	cargo test --workspace --no-fail-fast

test-postgres: ## The tests of finding, starting and using PostgreSQL; POSTGRES_FROM=docker or another forces a road to it
	cargo test --workspace --no-fail-fast --test cluster --test database --test docker --test stack --test store
	cargo test --workspace --no-fail-fast --test e2e takes_a_payment

ci: export NO_SKIP = 1
ci: lint $(PYTHON)/interop test ## What must pass before a change lands, no test skipped
	FUZZ_SECONDS=30 $(FUZZ)
	target/debug/drill corpora --every 20
	target/debug/drill bugs
	target/debug/drill crashes
	target/debug/drill kills --debug --rate 12 --open 5

fuzz: ## 10 minutes of hard input for everything that reads what callers send; FUZZ_SEED=n repeats what failed
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(FUZZ)

lint: $(PYTHON)/squawk $(PYTHON)/kubernetes-validate $(SQLX) ## Formatting, clippy, docs, migrations, .sqlx, manifests; a warning is an error
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package api --features faults -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	$(PYTHON)/squawk --config .squawk.toml migrations/*.up.sql
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(WITH_DATABASE) cargo sqlx prepare --check --workspace -- --all-targets
	$(PYTHON)/python deploy/check-manifests

sqlx: $(SQLX) ## Write .sqlx anew, after a query or a migration changed
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(WITH_DATABASE) cargo sqlx prepare --workspace -- --all-targets

openapi: ## Write docs/openapi.json anew, after a route or a limit changed
	cargo build --workspace --bins
	target/debug/paywright openapi > docs/openapi.json

test-corpora: ## Naughty strings and every emoji through every field, header, path, query; CORPORA=folder: JSONTestSuite too
	cargo build --workspace --bins
	target/debug/drill corpora

race: ## 500 rounds of 50 simultaneous creates through two processes: one charge each
	$(DRILL) race

proof: ## That nothing is charged twice or lost: bugs that are caught, 170 crashes, 500 kills under load
	$(DRILL) bugs --runs 5
	target/release/drill crashes
	PAYWRIGHT_BIN_DIR=target/release target/release/drill kills --services-killed 400 --postgres-killed 50 \
		--provider-killed 50 --rate 15 --open 8 --attempts 50000 --lost 100 --taken-over 50

bench: ## Payments per second, beside pgbench with the same statements; then with up to ten times as many as can be made
	$(DRILL) bench
	PAYWRIGHT_BIN_DIR=target/release target/release/drill overload

drill: ## One of the others: make drill NAME=refunds, duels, tenants, hangups, pooler, outage, slow, diskfull, pages, model or migrations; or STORY=1, 2, 3, 4
	$(DRILL) $(if $(STORY),story $(STORY),$(NAME))

test-images: ## Stand-ins for images, from Debian's packages, where no registry can be reached
	tests/images/build

test-deploy: ## Build the images, try them in containers, start all of it with Compose
	deploy/test.sh

$(SQLX):
	cargo install sqlx-cli --version 0.9.0 --locked --debug --no-default-features --features postgres,rustls \
		--root $(TOOLS) --target-dir $(TOOLS)/build

$(PYTHON)/pip:
	python3 -m venv $(TOOLS)/python

$(PYTHON)/squawk: | $(PYTHON)/pip
	$(PYTHON)/pip install --quiet squawk-cli==2.70.0

$(PYTHON)/kubernetes-validate: deploy/requirements.txt | $(PYTHON)/pip
	$(PYTHON)/pip install --quiet --requirement $<
	@touch $@

# what the tests against other people's implementations run; without it they say that they are skipped
$(PYTHON)/interop: tests/interop/requirements.txt | $(PYTHON)/pip
	$(PYTHON)/pip install --quiet --requirement $<
	@touch $@

# template only: begin
CARGO_GENERATE := $(TOOLS)/bin/cargo-generate
.PHONY: rename template-test

rename: ## A name of your own for the program, its settings and the prose: make rename NAME=my-pay
	@template/rename "$$NAME"

template-test: $(CARGO_GENERATE) ## Generate projects and run the lints and tests of one; FAST=1 builds it only
	template/test $(if $(FAST),--fast)

$(CARGO_GENERATE):
	cargo install cargo-generate --version 0.23.14 --locked --debug --root $(TOOLS) --target-dir $(TOOLS)/build
# template only: end
