# make demo   runs the main job: a capture becomes acknowledged accounting records
# make test   passes the tests; those that need root or a peer that is absent say so and are skipped
# make test-sctp passes those of SCTP on a kernel that has it: this one, or that of ../shared/sctp-vm.sh
# make build  makes bin/tollbridge
# make lint   reads the code: vet, staticcheck, formatting, generated files up to date
# make fuzz   runs every fuzz target for FUZZTIME each
# make sim    simulates SEEDS seeds of crashes, losses and repetitions; SEED=n repeats one with its trace, which
#             internal/sim/sim.go says how to read
# make bench  measures beside nfcapd, softflowd and goflow2, and writes docs/performance.md

GO       ?= go
FUZZTIME ?= 30s
SEEDS    ?= 10000
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

.PHONY: build demo test test-sctp lint fuzz sim bench clean

build:
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tollbridge ./cmd/tollbridge

demo: build
	bin/tollbridge demo

# Most tests of the daemon wait for other processes: several at once cost no more.
test:
	$(GO) tool gotestsum --format pkgname -- -race -parallel 6 -timeout 20m ./...
	$(GO) tool gotestsum --format pkgname -- -tags crashpoints -run CrashPoint ./spool
	$(GO) tool gotestsum --format pkgname -- -run TestSim ./internal/sim

# What speaks SCTP, without cgo or static: the other kernel has no libraries.
# One CPU each: two packages are tested at a time.
SCTP_VM := $(abspath ../shared/sctp-vm.sh)
IN_VM   := -exec '$(abspath .ci/sctp-vm) $(SCTP_VM)'
STATIC := -tags 'sqlite_omit_load_extension netgo osusergo' -ldflags '-linkmode external -extldflags -static'
test-sctp:
	@if [ -d /proc/sys/net/sctp ]; then \
	  $(GO) test -count=1 ./internal/sctp && $(GO) test -count=1 -run SCTP ./ipfix/export ./aaaclient ./cmd/tollbridge; \
	elif [ -x $(SCTP_VM) ]; then \
	  export SCTP_VM_CPUS=1; \
	  CGO_ENABLED=0 $(GO) test -count=1 $(IN_VM) ./internal/sctp && \
	  CGO_ENABLED=0 $(GO) test -count=1 $(IN_VM) -run SCTP ./ipfix/export ./aaaclient && \
	  $(GO) test -count=1 $(STATIC) $(IN_VM) -run SCTP ./cmd/tollbridge; \
	else \
	  echo "SCTP is not tested: this kernel has none, and ../shared/sctp-vm.sh is absent"; \
	fi

lint:
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) generate ./...
	git diff --exit-code -- '*_generated.go' '*.xml'

fuzz:
	@for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    echo "$$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
	  done; \
	done

sim:
	$(GO) test ./internal/sim -count=1 -timeout 60m -v -run TestSim $(if $(SEED),-seed $(SEED),-seeds $(SEEDS))

bench:
	cd bench && $(GO) run . -out ../docs/performance.md

clean:
	rm -rf bin
