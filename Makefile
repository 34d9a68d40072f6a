# Wattlet's build: `make` lists what can be made.
#
# Beyond Go, git and make nothing has to be there. Go tools are built from the modules in tools/ (versions and checksums
# in their go.mod and go.sum) into .cache/; the programs that tests talk to are unpacked from Debian's packages into
# .cache/ without being installed, so that no service of theirs starts; npm brings what the dashboard is built with, and
# Node itself where there is none. What is there already is used as it is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
# Steps come in the order they are written in, cheap ones first, also under make -j: each uses all cores by itself.
.NOTPARALLEL:

comma := ,
have = $(shell command -v $(1) 2>/dev/null)
step = @printf '\n== %s\n' "$(1)"
# Keeps what a go command has to say from drowning in what it downloads.
quiet = 2>&1 | sed '/^go: downloading /d'

ifeq ($(call have,go),)
$(error Go is missing: install Go 1.26 or newer and put it into PATH)
endif

VERSION  ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false
# No HTTP/2 server: scrapes need none, see docs/adr/0005-small-agent.md. The agent's tests build with the same tag.
TAGS     := nethttpomithttp2

# Tools are kept per Go release: a linter built with an older one refuses newer code.
BIN   := .cache/$(shell go env GOVERSION)
PEERS := $(if $(call have,coap-client-openssl),,.cache/libcoap) $(if $(call have,promtool),,.cache/prometheus) \
	$(if $(call have,victoria-metrics),,.cache/victoria-metrics)
# gcc is the race detector's; ip makes the network namespaces that tests lose packets in.
SYSTEM := $(if $(call have,gcc),,gcc libc6-dev) $(if $(call have,ip),,iproute2)
NODE_EXPORTER := $(if $(call have,prometheus-node-exporter),,.cache/node-exporter)

export PATH := $(CURDIR)/$(BIN):$(CURDIR)/.cache/libcoap/bin:$(CURDIR)/.cache/prometheus/bin:$(CURDIR)/.cache/victoria-metrics/bin:$(CURDIR)/.cache/node-exporter/bin:$(PATH)

.PHONY: help
help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: build ## Six simulated boards, their meter and a real agent for each on this machine; ARGS='--help' tells its flags
	bin/wattctl up $(ARGS)

.PHONY: build
build: dashboard ## bin/wattlet and bin/wattctl, static; GOARCH=arm64 or GOARCH=arm for a board
	$(GO_BUILD) -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/wattlet
	$(GO_BUILD) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/wattctl

.PHONY: functions
functions: ## bin/functions/: the serverless functions, static; GOARCH=arm64 or GOARCH=arm for a board
	@mkdir -p bin/functions
	$(GO_BUILD) -ldflags '-s -w' -o bin/functions/ ./functions/...

# go test has run them for this machine's processor.
.PHONY: functions-test
functions-test: ## The functions built for arm64 and 32-bit ARM, and run, emulated
	$(call step,functions: arm64 and 32-bit ARM)
	@$(if $(call have,qemu-aarch64-static),:,scripts/debian install qemu-user-static)
	@WATTLET_EMULATED=1 go test -count=1 -run '^TestARM$$' ./functions

# The dashboard is part of wattctl where Node can be had; where it cannot, the program is as good but for its pages.
.PHONY: dashboard
dashboard:
	@if scripts/node true; then $(MAKE) web; else echo "wattctl is built without its dashboard"; fi

.PHONY: web
web: web/dist/index.html ## The hub's dashboard, which make build then puts into wattctl; needs Node 20.19 and npm, or gets them

web/dist/index.html: web/node_modules/.package-lock.json $(shell find web/src web/public web/*.html web/*.json web/vite.config.ts web/test/weight.mjs -type f)
	@scripts/node npm --prefix web run --silent build
	@touch $@

# npm writes this file last.
web/node_modules/.package-lock.json: web/package-lock.json
	@echo "installing what the dashboard is built with (npm)"
	@scripts/node npm --prefix web ci --no-fund --no-audit --loglevel=error
	@touch $@

.PHONY: web-test
web-test: build $(if $(call have,chromium),,chromium) ## Tests of the dashboard, in Chromium too, over a fake hub and a real one
	$(call step,web: types, units, pages in Chromium)
	@scripts/node npm --prefix web run --silent check
	@scripts/node npm --prefix web test --silent
	@scripts/node npm --prefix web run --silent test:browser
	@scripts/node npm --prefix web run --silent test:real

.PHONY: chromium
chromium:
	@scripts/debian install chromium

.PHONY: test
test: lint system $(PEERS) go-test functions-test firmware-test dashboards-test helm-test image-test web-test e2e-containerd e2e-cluster-if-built ## Everything a change must pass

.PHONY: go-test
go-test:
	$(call step,go test -race)
	@go test -race ./...

# Of a module of its own, as other tools: nothing of the product needs what makes its Grafana dashboards.
.PHONY: dashboards-test
dashboards-test: build
	$(call step,Grafana dashboards: current; each query finds series)
	@WATTLET_BIN=$(CURDIR)/bin GOWORK=off go test -C tools/grafana -race ./...

# Without -race, which would double the minutes that compiling Kubernetes's types takes at first: nothing there runs at once.
.PHONY: helm-test
helm-test: build $(if $(call have,promtool),,.cache/prometheus) ## Tests of the Helm chart and the jsonnet library
	$(call step,Helm chart and jsonnet library: strict objects$(comma) no privilege$(comma) rules and dashboards from their one source)
	@WATTLET_BIN=$(CURDIR)/bin GOWORK=off go test -C tools/helm -count=1 ./...

.PHONY: chart
chart: ## Write anew what of the Helm chart is made: values.yaml, the table of values, golden manifests
	@GOWORK=off go run -C tools/helm . $(CURDIR)/deploy/helm/wattlet
	@GOWORK=off go test -C tools/helm -run Golden -update

# Sanitizers are in the tests' build, not in the program that people run.
FIRMWARE := .cache/firmware
# What the firmware is built and tested with: a compiler for this machine, one for the 32-bit cores of such chips, and a machine to run that.
FIRMWARE_SYSTEM := $(if $(call have,cmake),,cmake) $(if $(call have,pkg-config),,pkg-config) $(if $(call have,gcc),,gcc libc6-dev) \
	$(if $(wildcard /usr/include/coap3/coap.h),,libcoap3-dev)
FIRMWARE_TEST_SYSTEM := $(FIRMWARE_SYSTEM) $(if $(call have,coap-client-openssl),,libcoap3-bin) \
	$(if $(call have,protoc),,protobuf-compiler) $(if $(call have,protoc-gen-nanopb),,nanopb) $(if $(wildcard /usr/include/pb.h),,libnanopb-dev) \
	$(if $(call have,clang),,clang) $(if $(wildcard /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a),,libclang-rt-14-dev) \
	$(if $(call have,python3),,python3) \
	$(if $(call have,riscv64-unknown-elf-gcc),,gcc-riscv64-unknown-elf) $(if $(wildcard /usr/lib/picolibc/riscv64-unknown-elf/include/release/ssp/stdio.h),,picolibc-riscv64-unknown-elf) \
	$(if $(call have,qemu-system-riscv32),,qemu-system-misc) \
	$(if $(call have,xtensa-lx106-elf-gcc),,gcc-xtensa-lx106) $(if $(wildcard /usr/lib/xtensa-lx106-elf/include/release/ssp/stdio.h),,picolibc-xtensa-lx106-elf)

.PHONY: firmware
firmware: firmware-system ## bin/wattlet-meter: the meter's firmware as a process of this machine
	@cmake -S firmware/test -B $(FIRMWARE)-program -DFIRMWARE_SANITIZE=OFF -DFIRMWARE_PARTS=host -DCMAKE_BUILD_TYPE=Release >/dev/null
	@cmake --build $(FIRMWARE)-program --target wattlet-meter -j2 >/dev/null
	@mkdir -p bin && cp $(FIRMWARE)-program/host/wattlet-meter bin/

.PHONY: firmware-system
firmware-system:
	@$(if $(strip $(FIRMWARE_SYSTEM)),scripts/debian install $(FIRMWARE_SYSTEM),:)

.PHONY: firmware-test
firmware-test: firmware ## Tests of the firmware: sanitizers, fuzzing, a 32-bit machine, and the agent's tests with it as the meter
	$(call step,firmware: components on this machine and on a 32-bit one; the meter as a process)
	@$(if $(strip $(FIRMWARE_TEST_SYSTEM)),scripts/debian install $(FIRMWARE_TEST_SYSTEM),:)
	@cmake -S firmware/test -B $(FIRMWARE) >/dev/null
	@cmake --build $(FIRMWARE) -j2 >/dev/null
	@ctest --test-dir $(FIRMWARE) -j2 --output-on-failure
	$(call step,the agent's tests with the firmware as the meter)
	@WATTLET_METER=$(CURDIR)/bin/wattlet-meter go test ./cmd/wattlet ./cmd/wattctl

.PHONY: check-idf
check-idf: ## IDF_PATH=...: the firmware against the headers and options of that ESP-IDF, without building it
	@python3 firmware/test/idf/check-idf $(or $(IDF_PATH),$(error say where ESP-IDF is: make check-idf IDF_PATH=...)) $(ARGS)

# Of every program for every kind of board, in layouts that need no daemon and no registry.
IMAGES := bin/images
IMAGE_REPOSITORY ?= localhost
.PHONY: image
image: dashboard ## bin/images: container images of all programs and functions for amd64, arm64 and arm/v7; IMAGE_REPOSITORY=...
	$(call step,images)
	@GOWORK=off go run -C tools/images . -version '$(VERSION)' -repository '$(IMAGE_REPOSITORY)' $(if $(ONLY),-only '$(ONLY)') $(CURDIR)/$(IMAGES)

.PHONY: image-test
image-test: image ## Tests of the images: what is in them, and each program once on each processor, emulated
	$(call step,images: contents, processors, lists of modules)
	@$(if $(call have,qemu-arm-static),:,scripts/debian install qemu-user-static)
	@WATTLET_IMAGES=$(CURDIR)/$(IMAGES) GOWORK=off go test -C tools/images -count=1 ./...

.PHONY: dashboards
dashboards: ## Write deploy/grafana anew, from tools/grafana
	@GOWORK=off go run -C tools/grafana . $(CURDIR)/deploy/grafana

.PHONY: e2e
e2e: ## What takes long: a quarter of an hour of wattctl up against the truth
	WATTLET_LONG=1 go test ./cmd/wattctl -run TestUpIntervals -v -timeout 30m

# What runs there is as in the images that users get, for this machine alone. In namespaces of its own, which end with the test.
E2E := GOWORK=off WATTLET_BIN=$(CURDIR)/bin/wattlet WATTLET_IMAGES=$(CURDIR)/.cache/e2e-images go test -C test/e2e -count=1 -timeout 30m -v
E2E_SYSTEM := $(if $(call have,curl),,curl) $(if $(call have,containerd),,containerd) $(if $(call have,runc),,runc) $(if $(wildcard /usr/lib/cni/bridge),,containernetworking-plugins) \
	$(if $(call have,iptables),,iptables) $(if $(call have,ip),,iproute2)
.PHONY: e2e-images
e2e-images: build
	@$(if $(strip $(E2E_SYSTEM)),scripts/debian install $(E2E_SYSTEM),:)
	@GOWORK=off go run -C tools/images . -version e2e -platform linux/$(shell go env GOARCH) $(CURDIR)/.cache/e2e-images >/dev/null

.PHONY: e2e-containerd
e2e-containerd: e2e-images ## Functions in real control groups under containerd, against the truth (root)
	$(call step,functions under containerd)
	@$(E2E) -run '^TestContainerd$$'

.PHONY: e2e-cluster
e2e-cluster: e2e-images $(BIN)/helm ## The chart on a real Kubernetes, functions behind a gateway, faults (root; at first builds Kubernetes: 10 to 30 minutes)
	$(call step,the chart on a cluster)
	@hyper=$$(test/e2e/hyper/build) && WATTLET_HYPER=$$hyper WATTLET_HELM=$(CURDIR)/$(BIN)/helm $(E2E) -run '^TestCluster$$'

# To build Kubernetes takes longer than all other tests. Where that has been done, its test is one of them.
.PHONY: e2e-cluster-if-built
e2e-cluster-if-built:
	@if [[ -n $$(test/e2e/hyper/build --if-there) ]]; then $(MAKE) e2e-cluster; \
	else echo "not run: the chart on a real Kubernetes; make e2e-cluster builds it once, and then make test has it"; fi

.PHONY: e2e-churn
CHURN ?= 10m
e2e-churn: e2e-images ## 200 pods that come and go for CHURN=10m: memory and cost of the agent (root)
	@WATTLET_E2E_CHURN=$(CHURN) $(E2E) -run '^TestChurn$$'

.PHONY: lint
lint: format modules wire golangci vet-arm ## Everything a change must pass, but the tests

.PHONY: format
format:
	$(call step,gofmt -s)
	@bad=$$(find . -name '*.go' -not -path './.*' -not -path '*/node_modules/*' -exec gofmt -s -l {} +); \
	[[ -z $$bad ]] || { echo "$$bad"; echo "not formatted: run gofmt -s -w on these"; exit 1; }

.PHONY: modules
modules:
	$(call step,go mod tidy)
	@go mod tidy -diff $(quiet)
	@go mod tidy -C tools/buf -diff $(quiet)
	@go mod tidy -C tools/golangci -diff $(quiet)
	@GOWORK=off go mod tidy -C tools/grafana -diff $(quiet)
	@GOWORK=off go mod tidy -C tools/helm -diff $(quiet)
	@GOWORK=off go mod tidy -C tools/images -diff $(quiet)
	@GOWORK=off go mod tidy -C test/e2e -diff $(quiet)
	@GOWORK=off go mod tidy -C test/e2e/helm -diff $(quiet)

.PHONY: wire
wire: $(BIN)/buf $(BIN)/protoc-gen-go
	$(call step,wire: buf lint and breaking; generated code is current)
	@buf lint proto
	@buf format --diff --exit-code proto
	@buf breaking proto --against $(FROZEN)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	buf generate proto --template proto/buf.gen.yaml -o "$$fresh"; \
	diff -r --exclude=doc.go internal/wire/meterpb "$$fresh/internal/wire/meterpb" || { echo "not current: run make proto"; exit 1; }

.PHONY: golangci
golangci: $(BIN)/golangci-lint
	$(call step,golangci-lint)
	@golangci-lint run
	@cd tools/grafana && GOWORK=off golangci-lint run
	@cd tools/helm && GOWORK=off golangci-lint run
	@cd tools/images && GOWORK=off golangci-lint run
	@cd test/e2e && GOWORK=off golangci-lint run

# Most boards are 32-bit ARM, where int is shorter: constants that overflow and misaligned atomics show here.
.PHONY: vet-arm
vet-arm:
	$(call step,go vet for 32-bit ARM)
	@GOOS=linux GOARCH=arm CGO_ENABLED=0 go vet ./...

FROZEN := proto/frozen.txtpb

.PHONY: proto
proto: $(BIN)/buf $(BIN)/protoc-gen-go ## Go code from proto/
	buf generate proto --template proto/buf.gen.yaml

.PHONY: proto-freeze
proto-freeze: $(BIN)/buf ## Make the wire as it is now the one that later versions must keep to
	@[[ ! -e $(FROZEN) ]] || buf breaking proto --against $(FROZEN)
	buf build proto --exclude-source-info -o $(FROZEN)

.PHONY: docs
docs: ## Regenerate docs/metrics.md
	go test ./cmd/wattlet -run TestMetricsDoc -update

.PHONY: golden
golden: ## Rewrite golden files from what the code does now; read the diff
	go test -run Golden $$(grep -rl --include='*_test.go' 'flag.Bool("update"' cmd hardware internal | xargs -r dirname | sort -u | sed 's|^|./|') -update

.PHONY: bench
bench: $(NODE_EXPORTER) build ## Benchmarks, and what agent, hub and dashboard cost
	$(call step,parts)
	@go test -run '^$$' -bench . -benchmem -skip '^Benchmark(Cost|Hub)$$' ./...
	$(call step,the whole)
	@go test -run '^$$' -bench '^BenchmarkCost$$' ./cmd/wattlet
	$(call step,the hub, beside Prometheus)
	@go test -run '^$$' -bench '^BenchmarkHub$$' -benchtime 1x ./cmd/wattctl
	$(call step,the dashboard)
	@scripts/node npm --prefix web run --silent perf

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Each fuzz target in turn for FUZZTIME=30s
	@for package in $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do \
		for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

.PHONY: clean
clean: ## Remove everything make made
	rm -rf bin .cache web/node_modules
	find web/dist -mindepth 1 -not -name robots.txt -delete

$(BIN)/buf: tools/buf/go.mod tools/buf/go.sum
	@echo "building buf (two minutes at first)"
	@GOWORK=off CGO_ENABLED=0 go build -C $(<D) -trimpath -buildvcs=false -o $(CURDIR)/$@ tool $(quiet)
	@touch $@

$(BIN)/golangci-lint: tools/golangci/go.mod tools/golangci/go.sum
	@echo "building golangci-lint (two minutes at first)"
	@GOWORK=off CGO_ENABLED=0 go build -C $(<D) -trimpath -buildvcs=false -o $(CURDIR)/$@ tool $(quiet)
	@touch $@

$(BIN)/helm: test/e2e/helm/go.mod test/e2e/helm/go.sum
	@echo "building helm (two minutes at first)"
	@GOWORK=off CGO_ENABLED=0 go build -C $(<D) -trimpath -buildvcs=false -ldflags '-s -w' -o $(CURDIR)/$@ tool $(quiet)
	@touch $@

# Of the product's module, so that the generator and the library it generates for are always of one version.
$(BIN)/protoc-gen-go: go.mod
	@$(GO_BUILD) -o $@ google.golang.org/protobuf/cmd/protoc-gen-go $(quiet)
	@touch $@

.cache/libcoap:
	@scripts/debian unpack $@ libcoap3-bin libcoap3 libssl3
.cache/prometheus:
	@scripts/debian unpack $@ prometheus
.cache/victoria-metrics:
	@scripts/debian unpack $@ victoria-metrics
.cache/node-exporter:
	@scripts/debian unpack $@ prometheus-node-exporter

.PHONY: system
system:
	@$(if $(strip $(SYSTEM)),scripts/debian install $(SYSTEM),:)
