# Everything a developer, an operator or CI calls. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export GOTOOLCHAIN ?= local

GO       ?= go
BIN      := bin/runnerhub
PACKAGES := ./...
# The race detector multiplies memory and time: two packages at once is what a small machine bears.
TESTFLAGS ?= -timeout 20m

.PHONY: help run build agents demo test check format e2e bench fuzz tools ministack clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: tools ## build bin/runnerhub
	@echo "building $(BIN) (the first time takes a minute or two)"
	@$(GO) build -trimpath -ldflags '-s -w' -o $(BIN) ./infra/standalone

# Builds on AWS download their agent. The same sources give the same bytes, wherever they are built.
AGENTS := bin/agents
agents: tools ## build the agents of builds on AWS: bin/agents/linux-{amd64,arm64}.gz
	@mkdir -p $(AGENTS)
	@for platform in linux-amd64 linux-arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$${platform#linux-} $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(AGENTS)/$$platform ./infra/agent; \
	  gzip -9nf $(AGENTS)/$$platform; \
	done

run: build ## run the server, with a sandbox Bitbucket unless BITBUCKET_CLIENT_ID is set
	@exec $(BIN) serve

demo: ## walk through a first build against a running `make run`
	@$(GO) run ./infra/demo

test: tools ministack ## run every test
	$(GO) test $(TESTFLAGS) $(PACKAGES)

e2e: tools ## run the end-to-end scripts: make e2e STACK=standalone
	STACK="$(STACK)" $(GO) test $(TESTFLAGS) -count=1 -parallel 8 ./infra/e2e

check: tools ministack ## what CI runs: format, vet, staticcheck, build, tests with the race detector
	@echo "== format"; out=$$($(GO) tool gofumpt -l .); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	@echo "== vet"; $(GO) vet $(PACKAGES)
	@echo "== staticcheck"; $(GO) tool staticcheck $(PACKAGES)
	@echo "== go.mod"; $(GO) mod verify >/dev/null; $(GO) mod tidy -diff
	@echo "== build"; $(MAKE) --no-print-directory build
	@echo "== tests"; $(GO) test -race $(TESTFLAGS) $(PACKAGES)

format: ## format the code
	$(GO) tool gofumpt -w .

bench: build ## print figures and ratios
	@$(GO) run ./infra/bench

FUZZTIME ?= 30s
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@$(GO) list -f '{{.Dir}}{{"\t"}}{{.ImportPath}}' $(PACKAGES) | while IFS=$$'\t' read -r dir package; do \
	  grep -hos '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go | sed 's/^func //' | while read -r target; do \
	    echo "== $$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
	  done; done

tools:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or later"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: install git 2.38 or later"; exit 1; }

# A virtual environment of its own; the stamp is as new as the list of what is in it.
MINISTACK_HOME := bin/ministack
ministack: $(MINISTACK_HOME)/installed ## install MiniStack, which stands for AWS in tests (Python 3.11 or later)
$(MINISTACK_HOME)/installed: infra/ministack/requirements.txt
	@python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later with its venv module is missing, which the tests of the AWS drivers need"; exit 1; }
	@echo "installing MiniStack into $(MINISTACK_HOME)"
	@python3 -m venv --clear $(MINISTACK_HOME)
	@$(MINISTACK_HOME)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $< || { echo "pip could not install MiniStack: see above; another one can be named in MINISTACK"; exit 1; }
	@touch $@

clean: ## remove what was built (never data)
	rm -rf bin
