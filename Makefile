# The project's commands. "make" lists them.

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

FUZZTIME ?= 10s
BENCH_RUNS ?= 3
FAULT_SEED ?= 1
CRASH_ROUNDS ?= 20
CRASH_KILLS ?= 1000
CRASH_FOR ?= 20m
ROTATION ?= 60s
EARLIER ?= 0d06215
CONFIG ?=
VERSION ?=
TOOL := go tool -modfile=tools/go.mod
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## the static binary, bin/mirror
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w $(if $(VERSION),-X main.version=$(VERSION))' -o bin/mirror ./cmd/mirror

.PHONY: run
run: build ## run it, with CONFIG=FILE or without any configuration
	bin/mirror serve $(if $(CONFIG),--config $(CONFIG))

.PHONY: test
test: install unit build e2e cross ## everything: unit tests, real registries and clients (as root on Debian), all platforms

.PHONY: test-container
test-container: ## what CI runs, in a container of Debian 12 with podman or docker: for machines that are something else
	@engine=$$(command -v podman || command -v docker) || { echo "needs podman or docker"; exit 2; }; \
	"$$engine" run --rm -it --privileged -v "$(CURDIR):/src" -w /src -v mirror-go:/go/pkg/mod -v mirror-cache:/root/.cache \
	  golang:1.26-bookworm sh -c 'git config --global --add safe.directory /src && .ci/run'

.PHONY: unit
unit: ## the product's own tests under the race detector, which needs gcc; "go test ./..." does not
	go vet ./...
	go test -race -shuffle=on -pgo=off ./... # with the profile, all that cmd/mirror imports is compiled once more

.PHONY: install
install: ## what e2e and bench need and this machine lacks (as root on Debian)
	./e2e/install.sh

.PHONY: e2e
e2e: install ## real registries and clients, and the OCI conformance suite; RUN=REGEXP for some of them
	cd e2e && go vet ./... && go test -race -count=1 -timeout 30m $(if $(RUN),-v -run '$(RUN)') ./...
	cd e2e/chart && go vet ./... && go test -count=1 -timeout 20m $(if $(RUN),-v -run '$(RUN)') ./...

.PHONY: e2e-kubernetes
e2e-kubernetes: ## a real cluster of one node (built once, a quarter of an hour): what a person sees at the pod, and the chart in use
	./e2e/install.sh kubernetes
	cd e2e && MIRROR_E2E_KUBERNETES=1 go test -count=1 -timeout 40m -v -run '^TestKubernetes' .

.PHONY: reasons
reasons: install ## a place for each reason of docs/failures, pulled from by every client: five minutes; UPDATE=1 writes the matrix
	cd e2e && go test -count=1 -timeout 20m -run '^TestReasons$$' . -reasons $(if $(UPDATE),-update)

.PHONY: first-byte
first-byte: install ## a layer of 2 GB from a registry of 20 MB/s to containerd 2.3: when each answer begins; two minutes or so
	cd e2e && go test -count=1 -timeout 20m -v -run '^TestFirstByte$$' . -large

.PHONY: black-hole
black-hole: install ## what a mirror that takes no packets costs containerd 1.6, which waits 30 s for each connection; some minutes
	cd e2e && MIRROR_E2E_BLACK_HOLE=1 go test -count=1 -timeout 20m -v -run '^TestBlackHoleOldContainerd$$' .

.PHONY: tour
tour: build ## ten failures on this machine, offline: what a client prints without the mirror and with it; mirror demo is quicker
	@./e2e/install.sh tour
	@cd e2e && go run ./tour -mirror ../bin/mirror

.PHONY: kill
kill: ## kill -9 of the binary at every named point and at random, in full: an hour or so; CRASH_SEED=N repeats a run
	cd e2e && CRASH_ROUNDS=$(CRASH_ROUNDS) CRASH_KILLS=$(CRASH_KILLS) CRASH_FOR=$(CRASH_FOR) \
	  go test -count=1 -timeout 90m -v -run '^(TestKill|TestPoints)' . | grep -v '^=== '

.PHONY: attack
attack: install build ## a hostile registry, publisher and client against the binary, floods in full: half an hour; RUN=REGEXP for some scenes
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; mkdir "$$dir/source"; \
	git archive $(EARLIER) | tar -x -C "$$dir/source"; \
	(cd "$$dir/source" && CGO_ENABLED=0 go build -pgo=off -o "$$dir/earlier" ./cmd/mirror); \
	cd e2e && go run ./attack -mirror ../bin/mirror -earlier "$$dir/earlier" $(if $(RUN),-run '$(RUN)')

.PHONY: faults
faults: ## the fault matrix, in full: 100,000 trials, a quarter of an hour; FAULTS='-only F8 -seed 7 -trials 1' for one
	go test -v -count=1 -timeout 120m ./internal/faults -run '^TestMatrix$$' \
	  $(or $(FAULTS),-trials 100000 -large 50 -seed $(FAULT_SEED)) | grep -vE '^ *(===|--- PASS)'

.PHONY: rotation
rotation: ## logins that live 5 s and tokens that live 2 s, under 50 clients, for ROTATION=60s of the test's own clock
	go test -count=1 -v ./upstream -run '^TestRotationUnderLoad$$' -rotation $(ROTATION)

.PHONY: release
release: ## archives, deb and rpm, SBOMs, checksums and notes, into bin/release; VERSION=v1.2.3
	@[[ "$(VERSION)" =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$$ ]] || { echo "write VERSION=v1.2.3"; exit 2; }
	@rm -rf bin/release bin/platforms && mkdir -p bin/release bin/platforms
	@$(MAKE) --no-print-directory release-notes VERSION=$(VERSION) >bin/release/NOTES.md
	@for target in $(TARGETS); do \
	  echo "build for $$target"; \
	  CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' \
	    -o bin/platforms/$${target%/*}-$${target#*/} ./cmd/mirror; \
	done
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} go run ./internal/release -version $(VERSION) -o bin/release \
	  $(foreach target,$(TARGETS),$(target)=bin/platforms/$(subst /,-,$(target)))
	@cat bin/release/SHA256SUMS

.PHONY: release-check
release-check: ## the last commit released twice, from two folders and without Go's cache, and compared byte by byte: half an hour
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	for copy in one two/deeper; do \
	  git clone -q . "$$dir/$$copy"; \
	  sed -i 's/^## Unreleased$$/## v0.0.0/' "$$dir/$$copy/CHANGELOG.md"; \
	  GOCACHE="$$dir/cache-$${copy%/*}" $(MAKE) --no-print-directory -C "$$dir/$$copy" release VERSION=v0.0.0 TARGETS="$(TARGETS)"; \
	  rm -rf "$$dir/cache-$${copy%/*}"; \
	done; \
	diff -r "$$dir/one/bin/release" "$$dir/two/deeper/bin/release" && echo "both releases have the same bytes"

.PHONY: release-notes
release-notes: ## the section of CHANGELOG.md for VERSION=v1.2.3, by kind; without VERSION what is not released yet
	@go run ./internal/notes $(VERSION) <CHANGELOG.md

.PHONY: image
image: ## the container image of linux/amd64 and linux/arm64 as an OCI layout, bin/image, with its SBOMs; needs no container engine
	@rm -rf bin/image bin/image.*.json bin/linux && mkdir -p bin/linux
	@for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(or $(VERSION),dev)' \
	    -o bin/linux/$$arch ./cmd/mirror; \
	done
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} go run ./internal/image -version $(or $(VERSION),dev) \
	  -revision "$$(git rev-parse HEAD)" -o bin/image linux/amd64=bin/linux/amd64 linux/arm64=bin/linux/arm64

.PHONY: manifests
manifests: install ## README.md of the Helm chart, deploy/kustomize, and what their tests compare with, from the chart
	cd e2e/chart && UPDATE=1 go test -count=1 -run '^(TestReadme|TestKustomize|TestMatrix)$$' ./...

.PHONY: licenses
licenses: ## the modules that the binary is linked with, and where their licenses are
	@go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/mirror | sort -u | \
	  while read -r module version dir; do \
	    printf '%-50s %-12s %s\n' "$$module" "$$version" "$$(cd "$$dir" && ls | grep -iE '^(licen[cs]e|copying|notice)' | tr '\n' ' ')"; \
	  done

.PHONY: cross
cross: build ## builds for every platform that is promised
	@for target in $(filter-out $(shell go env GOOS)/$(shell go env GOARCH),$(TARGETS)); do \
	  echo "build for $$target"; \
	  CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} go build -trimpath -pgo=off -o /dev/null ./cmd/mirror; \
	done

.PHONY: bench
bench: install build ## the comparison with other proxies, into docs/performance.md; BENCH_RUNS=3
	cd e2e && go run ./bench -runs $(BENCH_RUNS) -mirror ../bin/mirror -write ../docs/performance.md

.PHONY: profile
profile: install build ## records under load what the compiler optimises for, into cmd/mirror/default.pgo
	cd e2e && go run ./bench profile -mirror ../bin/mirror -o ../cmd/mirror/default.pgo

.PHONY: lint
lint: ## golangci-lint and gofumpt, all modules
	$(TOOL) golangci-lint run ./...
	cd e2e && go tool -modfile=../tools/go.mod golangci-lint run --config ../.golangci.yml ./...
	@for dir in e2e/hosts/*/; do (cd "$$dir" && go tool -modfile=../../../tools/go.mod golangci-lint run --config ../../../.golangci.yml ./...); done
	cd e2e/chart && go tool -modfile=../../tools/go.mod golangci-lint run --config ../../.golangci.yml ./...
	@out=$$($(TOOL) gofumpt -l .); if [ -n "$$out" ]; then echo "not formatted, run make fmt:"; echo "$$out"; exit 1; fi

.PHONY: fmt
fmt: ## gofumpt
	$(TOOL) gofumpt -w .

.PHONY: fuzz
fuzz: ## every fuzz test in turn, each for FUZZTIME=10s
	@list=$$(grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); \
	for dir in $$list; do \
	  for name in $$(grep -hoE '^func Fuzz\w+' $$dir/*_test.go | cut -c6- | sort); do \
	    echo "== $$dir $$name"; \
	    go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$dir; \
	  done; \
	done
