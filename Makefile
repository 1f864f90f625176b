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

.PHONY: help run test ci fmt lint docs lint-migrations check-sqlx sqlx openapi race storm bench drill

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: ## Start everything and say what to try next; Ctrl-C stops it all
	cargo build --workspace --bins
	@exec target/debug/devstack

test: ## The whole test suite, against a real PostgreSQL that is found or installed
	cargo test --workspace --no-fail-fast

ci: export NO_SKIP = 1
ci: fmt lint docs lint-migrations check-sqlx $(PYTHON)/interop test ## What must pass before a change lands, no test skipped

fmt: ## Is everything formatted?
	cargo fmt --all --check

lint: ## clippy on everything, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

docs: ## Build the code's documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

lint-migrations: $(PYTHON)/squawk ## Are the migrations safe for a database that is in use?
	$(PYTHON)/squawk --config .squawk.toml migrations/*.up.sql

check-sqlx: $(SQLX) ## Is .sqlx what the queries and the schema say?
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(WITH_DATABASE) cargo sqlx prepare --check --workspace -- --all-targets

sqlx: $(SQLX) ## Write .sqlx anew, after a query or a migration changed
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(WITH_DATABASE) cargo sqlx prepare --workspace -- --all-targets

openapi: ## Write docs/openapi.json anew, after a route or a limit changed
	cargo build --workspace --bins
	target/debug/paywright openapi > docs/openapi.json

race: ## 500 rounds of 50 simultaneous creates through two processes: one charge each
	$(DRILL) race

storm: ## Kill the service 100 times under load while the provider loses answers
	$(DRILL) kills

bench: ## Payments per second, beside pgbench with the same statements
	$(DRILL) bench

drill: ## One of the others: make drill NAME=refunds, duels, tenants, hangups or pages
	$(DRILL) $(NAME)

$(SQLX):
	cargo install sqlx-cli --version 0.9.0 --locked --debug --no-default-features --features postgres,rustls \
		--root $(TOOLS) --target-dir $(TOOLS)/build

$(PYTHON)/pip:
	python3 -m venv $(TOOLS)/python

$(PYTHON)/squawk: | $(PYTHON)/pip
	$(PYTHON)/pip install --quiet squawk-cli==2.70.0

# what the tests against other people's implementations run; without it they say that they are skipped
$(PYTHON)/interop: tests/interop/requirements.txt | $(PYTHON)/pip
	$(PYTHON)/pip install --quiet --requirement $<
	@touch $@
