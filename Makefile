# Everything a developer, an operator or CI calls. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export GOTOOLCHAIN ?= local

GO       ?= go
BIN      := bin/runnerhub
PACKAGES := ./...
# The race detector multiplies memory and time: two packages at once is what a small machine bears.
TESTFLAGS ?= -timeout 40m

.PHONY: help run build agents demo test check format template deploy e2e bench fuzz tools ministack sam clean

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
	  test $$(wc -c <$(AGENTS)/$$platform.gz) -lt 4000000 || { echo "the agent is too large for an answer of a Lambda function"; exit 1; }; \
	done

# sam build calls these from the root of the tree, one for each function and layer of template.yaml. A function's folder has its
# name in small letters. FUNCTIONS_ARCH has to be the template's Architecture.
FUNCTIONS_ARCH ?= arm64
build-%Function:
	@name=$*; CGO_ENABLED=0 GOOS=linux GOARCH=$(subst x86_64,amd64,$(FUNCTIONS_ARCH)) $(GO) build -tags lambda.norpc -trimpath -buildvcs=false -ldflags '-s -w' \
	  -o "$(ARTIFACTS_DIR)/bootstrap" "./functions/$${name,,}"

build-AgentsLayer: agents
	@mkdir -p "$(ARTIFACTS_DIR)/agents"
	@cp $(AGENTS)/linux-amd64.gz $(AGENTS)/linux-arm64.gz "$(ARTIFACTS_DIR)/agents/"

run: build ## run the server, with a sandbox Bitbucket unless BITBUCKET_CLIENT_ID is set
	@exec $(BIN) serve

demo: ## walk through a first build against a running `make run`
	@$(GO) run ./infra/demo

test: tools ministack ## run every test
	$(GO) test $(TESTFLAGS) $(PACKAGES)

e2e: tools $(if $(filter standalone,$(STACK)),,ministack) ## run the end-to-end scripts: make e2e STACK=standalone or STACK=lambda, or both
	STACK="$(STACK)" $(GO) test $(TESTFLAGS) -count=1 ./infra/e2e

check: tools ministack sam ## what CI runs: format, vet, staticcheck, build, template, tests with the race detector
	@echo "== format"; out=$$($(GO) tool gofumpt -l .); test -z "$$out" || { echo "gofumpt would change:"; echo "$$out"; exit 1; }
	@echo "== vet"; $(GO) vet $(PACKAGES)
	@echo "== staticcheck"; $(GO) tool staticcheck $(PACKAGES)
	@echo "== go.mod"; $(GO) mod verify >/dev/null; $(GO) mod tidy -diff
	@echo "== build"; $(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory template
	@# A test that fails says why in front of a long log: what it said is told again at the end, where one looks first.
	@echo "== tests"; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	$(GO) test -race $(TESTFLAGS) $(PACKAGES) 2>&1 | tee "$$log" || { \
	  echo "== what failed"; grep -E '^ *--- FAIL|^ +[a-z0-9_]+\.go:[0-9]+: |^panic: |^FAIL\b|^WARNING: DATA RACE' "$$log" | cut -c1-400 | tail -60; exit 1; }

# sam and cfn-lint need a region and no credentials. The test builds with sam what the template deploys, and deploys it to MiniStack.
template: tools sam ## check the templates, build what they deploy, and deploy it to MiniStack
	@echo "== cfn-lint"; AWS_DEFAULT_REGION=us-east-1 $(SAM_HOME)/bin/cfn-lint template.yaml infra/aws/data.yaml infra/aws/builds.yaml infra/aws/alarms.yaml
	@echo "== shellcheck"; $(SAM_HOME)/bin/shellcheck infra/aws/deploy.sh
	@echo "== sam validate"; AWS_DEFAULT_REGION=us-east-1 $(SAM) validate --lint
	@echo "== deploy to MiniStack"; $(GO) vet -tags deployment ./infra/aws; $(GO) tool staticcheck -tags deployment ./infra/aws
	@$(GO) test $(TESTFLAGS) -tags deployment -count=1 -run '^TestDeploy' ./infra/aws

ENV ?= dev
deploy: tools sam ## deploy to AWS: make deploy ENV=dev|prod
	@SAM=$(SAM) infra/aws/deploy.sh $(ENV)

format: ## format the code
	$(GO) tool gofumpt -w .

bench: build ministack ## print figures and ratios
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

# The AWS SAM CLI and what checks templates, installed as MiniStack is. The list is complete, so nothing is to be resolved. It asks
# nobody about newer versions and reports to nobody.
SAM_HOME := bin/sam
SAM      := $(SAM_HOME)/bin/sam
export SAM_CLI_TELEMETRY := 0
export __SAM_CLI_APP_DIR := $(CURDIR)/$(SAM_HOME)/settings
sam: $(SAM_HOME)/installed ## install the AWS SAM CLI and cfn-lint (Python 3.11 or later)
$(SAM_HOME)/installed: infra/aws/requirements.txt
	@python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later with its venv module is missing, which the AWS SAM CLI needs"; exit 1; }
	@echo "installing the AWS SAM CLI into $(SAM_HOME)"
	@python3 -m venv --clear $(SAM_HOME)
	@$(SAM_HOME)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< || { echo "pip could not install the AWS SAM CLI: see above"; exit 1; }
	@mkdir -p $(SAM_HOME)/settings
	@echo '{"telemetryEnabled": false, "lastVersionCheck": 4102444800.0}' > $(SAM_HOME)/settings/metadata.json
	@touch $@

clean: ## remove what was built (never data)
	rm -rf bin
