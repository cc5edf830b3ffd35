# `make demo` starts a ring on this machine; `make test` runs every test. Both install what is missing first.
# All of them build with the one profile `release`, so that RocksDB is compiled once.

.PHONY: help demo install test simulate build lint deny ci setup
.PHONY: test-compose test-pages test-mutations test-api test-security
.DEFAULT_GOAL := help

# ccache first, so that compiling RocksDB again (another checkout, a changed flag) takes a minute; a Rust that
# was installed a moment ago is found before the next login.
export PATH := /usr/lib/ccache:$(PATH):$(HOME)/.cargo/bin

corro = "$${CARGO_TARGET_DIR:-target}/release/corro"

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Start a gateway and three db-processes, and say how to use them; Ctrl-C stops them
	@exec $(corro) demo --exit-with-parent $$PPID

test: setup ## Run every test
	cargo test --release --workspace

PREFIX ?= /usr/local
share = $(DESTDIR)$(PREFIX)/share
install: build ## Install the command corro, its manual pages and completions: make install PREFIX=/usr
	install -D $(corro) $(DESTDIR)$(PREFIX)/bin/corro
	$(corro) man $(share)/man/man1
	cd $(share) && install -d bash-completion/completions zsh/site-functions fish/vendor_completions.d
	$(corro) completions bash > $(share)/bash-completion/completions/corro
	$(corro) completions zsh > $(share)/zsh/site-functions/_corro
	$(corro) completions fish > $(share)/fish/vendor_completions.d/corro.fish

SEEDS ?= 100000
simulate: setup ## Run the simulation with many seeds: make simulate SEEDS=1000000
	CORRO_SEEDS=$(SEEDS) cargo test --release -p corro --test simulation -- --nocapture no_seed_breaks_a_promise

build: setup ## Build everything
	cargo build --release --workspace

lint: setup ## Check structure, format and lints
	corro/tests/structure.py
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

deny: ## Check licences, sources and known faults of the dependencies; needs cargo-deny
	cargo deny check

test-compose: ## Run the ring in containers, stop one under load, count failed reads; needs docker
	corro/tests/compose.sh

test-pages: build ## Look at the pages with a headless Chromium, and use them; needs chromium and chromedriver
	@corro/tests/pages.py || [ $$? -eq 77 ]

test-mutations: setup ## Plant bugs, one after the other, and let the simulation find each of them
	cargo test --release --workspace --features corro/mutations --test simulation -- --nocapture mutations

test-api: build ## Let Schemathesis look for answers that the OpenAPI document forbids; needs PyPI
	@corro/tests/schemathesis.sh $(arguments) || [ $$? -eq 77 ]

test-security: build ## Attack rings, and see each attack fail; needs python3, and sslscan and chromium
	@corro/tests/security/run.sh $(scripts)

ci: ## All that is checked before a change is taken
	.ci/run

setup: ## Install what is missing: a C++ compiler, pkg-config, libclang, OpenSSL headers, ccache
	@corro/setup.sh
