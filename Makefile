# `make` is the index of what can be done here. Everything that continuous integration does is a target below.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# Variables to set on the command line.
PKG ?= ./...
RUN ?=
FUZZTIME ?= 30s
COUNT ?= 1
CYCLES ?= 50
SEED ?=
ARGS ?=

tools := $(CURDIR)/.cache/bin
lint := $(tools)/golangci-lint
vuln := $(tools)/govulncheck
skaffold := $(tools)/skaffold
alicloud := $(CURDIR)/.cache/tofu/terraform-provider-alicloud

# The programs and where they are made.
programs := outrider=./sidecar outrider-webhook=./webhook kubectl-outrider=./webhook/kubectl-outrider devcloud=./e2e/devcloud ledger=./e2e/ledger/cmd/ledger
# kubectl asks this one for completions of kubectl-outrider, if it is in PATH beside it.
completion := webhook/kubectl-outrider/kubectl_complete-outrider
name = $(firstword $(subst =, ,$1))
where = $(lastword $(subst =, ,$1))

# program runs a program of e2e with ARGS. It needs the others, and a PostgreSQL.
program = @go build -o bin/$1 ./e2e/$1 && bin/$1 $(ARGS)

##@ Everyday

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo

.PHONY: build
build: ## Build the programs into bin/, with kubectl's completion of kubectl outrider
	@mkdir -p bin
	@$(foreach p,$(programs),echo "go build -o bin/$(call name,$p) $(call where,$p)"; \
		CGO_ENABLED=0 go build -trimpath -o bin/$(call name,$p) $(call where,$p);)
	@install -m 755 $(completion) bin/

# Before anything is built: it says which Go is needed.
.PHONY: demo-setup
demo-setup:
	@.ci/setup demo

.PHONY: demo
demo: demo-setup build ## Protect a real PostgreSQL, lose it twice, restore it, and report what was measured
	$(call program,demo)

.PHONY: test
test: setup lint race e2e ## Everything that can be tested on this machine; under CI=1 a skip is a failure

.PHONY: fmt
fmt: $(lint) ## Format the code as the linter wants it
	$(lint) fmt

.PHONY: clean
clean: ## Remove what was built (not .cache, which holds tools, PostgreSQL and Kubernetes)
	rm -rf bin out

##@ Parts of `make test`

.PHONY: setup
setup: ## Install what is missing to build, test and run the demo
	@.ci/setup test

.PHONY: lint
lint: $(lint) ## Check style, import rules and frequent mistakes (.golangci.yml)
	$(lint) run --allow-parallel-runners ./...

# Packages spend much of their time waiting for servers: one more at a time than there are cores.
.PHONY: race
race: ## Run the Go tests alone, shuffled, with the race detector; PKG=./some/pkg RUN=regexp choose
	go run ./e2e/testgate -again=3 -p=3 -race -shuffle=on -timeout=25m $(if $(RUN),-run '$(RUN)') $(PKG)

##@ On a real Kubernetes cluster, which is built and started here (root, Linux)

# Built, not run by go, because it starts itself anew.
cluster = @go build -o bin/cluster ./e2e/cluster/cmd/cluster && bin/cluster

.PHONY: cluster
cluster: setup ## Start a cluster, if none runs, and say how to use it; bin/cluster also takes its nodes away
	$(cluster) up

.PHONY: cluster-down
cluster-down: ## End the cluster without a trace
	$(cluster) down

# In a cluster that is not ours a scenario that takes a node away is skipped, and that is no failure. Tests do not run in this
# directory, so that they want to know where it is.
named = $(if $(OUTRIDER_E2E_KUBECONFIG),env -u CI -u STRICT OUTRIDER_E2E_KUBECONFIG='$(abspath $(OUTRIDER_E2E_KUBECONFIG))')

.PHONY: e2e
e2e: $(if $(OUTRIDER_E2E_KUBECONFIG),,setup) ## Play the scenarios: nodes that go away under databases; RUN=regexp chooses; OUTRIDER_E2E_KUBECONFIG=file plays them in that cluster
	$(named) go run ./e2e/testgate -again=2 -tags=e2e -count=1 -parallel=32 -timeout=60m -v $(if $(RUN),-run '$(RUN)') ./e2e/mission

.PHONY: e2e-images
e2e-images: setup ## Build the images that the scenarios need into .cache/images; OUTRIDER_E2E_IMAGES=registry.example.com/team pushes them there
	go run ./e2e/images/push $(OUTRIDER_E2E_IMAGES)

# What needs a kubeconfig and no more: stops, a change of the template, new keys, and OSS that goes away.
guests := Zero|Rolling|Deployment|RotatedKeys|StorageAway

.PHONY: e2e-foreign
e2e-foreign: setup ## Play a few scenarios in a cluster as if it were somebody else's, and see that nothing of them is left; RUN=regexp chooses
	@go build -o bin/cluster ./e2e/cluster/cmd/cluster
	.ci/e2e-foreign '$(if $(RUN),$(RUN),^Test($(guests))$$)'

.PHONY: skaffold
skaffold: setup $(skaffold) ## Run skaffold dev on a cluster of its own, with a registry, and edits that become live
	go test -tags e2e -count=1 -timeout=40m -v ./e2e/skaffold

##@ In the cloud

.PHONY: terraform
terraform: $(tools)/tofu $(alicloud) ## Check the modules of manifests/terraform with OpenTofu, without a cloud (builds for minutes, once)
	.ci/tofu/check $(tools)/tofu $(dir $(alicloud))

##@ Longer runs

# Ends that leave no time for an orderly stop are judged here by what is promised: one database at a time has the machine.
soaked := ManyNotices|LargeNotice|StorageLongAway|Lost|Partition|WebhookAway|Force|Pressure|SizeLimit

.PHONY: soak-e2e
soak-e2e: setup ## On a real cluster: reclaim one node after the other under load, CYCLES=20, move 1 GiB, OSS away for ten minutes, ends held to the RPO
	OUTRIDER_CLUSTER_DISK=$(CURDIR)/.cache/disk OUTRIDER_SOAK=1 OUTRIDER_CYCLES=$(if $(filter command,$(origin CYCLES)),$(CYCLES),20) \
		go test -tags e2e,soak -count=1 -parallel=1 -timeout=0 -v -run '$(if $(RUN),$(RUN),^Test($(soaked))$$)' ./e2e/mission

.PHONY: soak
soak: ## Load, kill, restore elsewhere, compare: CYCLES=50; SEED=n repeats a run
	@.ci/setup test
	OUTRIDER_SOAK=1 OUTRIDER_CYCLES=$(CYCLES) OUTRIDER_SEED=$(SEED) go test -count=1 -timeout=0 -v ./e2e/cycles

.PHONY: idle
idle: demo-setup build ## Count the OSS requests of an idle database for five real minutes
	$(call program,idle)

.PHONY: bench
bench: ## Run the benchmarks of the packages; PKG chooses, COUNT=6 repeats for benchstat (see also bench-e2e)
	go test -run '^$$' -bench . -benchmem -count=$(COUNT) -timeout=0 $(PKG)

.PHONY: bench-e2e
bench-e2e: demo-setup build ## Measure the programs on a real server, beside pgBackRest if it is installed; ARGS="-rounds 1 -only backlog"
	$(call program,bench)

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME=30s; PKG chooses
	@found=0; for pkg in $$(go list $(PKG)); do \
		for name in $$(go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			found=1; echo "$$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
		done; \
	done; \
	[[ $$found == 1 ]] || { echo "make fuzz: no fuzz target in $(PKG)" >&2; exit 1; }

.PHONY: vulncheck
vulncheck: $(vuln) ## Look for known vulnerabilities (needs the vulnerability database; not part of make test)
	$(vuln) ./...

##@ Housekeeping

.PHONY: tidy
tidy: ## Bring go.mod and go.sum in order, also those of the tools
	go mod tidy
	for module in .ci/tools .ci/skaffold .ci/tofu/opentofu .ci/tofu/provider e2e/cluster/kubernetes e2e/cluster/containerd; do (cd "$$module" && go mod tidy); done

.PHONY: images
images: ## Container images into out/images, without an engine; ARGS="-tag v1.2.3 -platform linux/amd64,linux/arm64" (images/README.md)
	go run ./images/build $(ARGS)

# The tools have a module of their own, so that none of their dependencies gets into ours.
$(lint): .ci/tools/go.mod .ci/tools/go.sum
	@echo "building golangci-lint (minutes, once)"
	@mkdir -p $(tools)
	cd .ci/tools && GOBIN=$(tools) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

$(vuln): .ci/tools/go.mod .ci/tools/go.sum
	@mkdir -p $(tools)
	cd .ci/tools && GOBIN=$(tools) go install golang.org/x/vuln/cmd/govulncheck
	@touch $@

$(skaffold): .ci/skaffold/go.mod .ci/skaffold/go.sum
	@echo "building skaffold (minutes, once)"
	@mkdir -p $(tools)
	cd .ci/skaffold && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/GoogleContainerTools/skaffold/v2/cmd/skaffold
	@touch $@

$(tools)/tofu: .ci/tofu/opentofu/go.mod .ci/tofu/opentofu/go.sum
	@echo "building OpenTofu (minutes, once)"
	@mkdir -p $(tools)
	cd .ci/tofu/opentofu && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/opentofu/opentofu/cmd/tofu
	@touch $@

$(alicloud): .ci/tofu/provider/go.mod .ci/tofu/provider/go.sum
	@echo "building the provider for Alibaba Cloud (many minutes, once)"
	@mkdir -p $(dir $@)
	cd .ci/tofu/provider && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/aliyun/terraform-provider-alicloud
	@touch $@
