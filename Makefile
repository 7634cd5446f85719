# startgate. On a fresh Debian or Ubuntu machine, as root: `make run`, `make test`.
SHELL := /bin/bash
.DELETE_ON_ERROR:
VENV   := .venv
PY     := $(VENV)/bin/python
ARCH   := $(shell uname -m)
BPF    := src/startgate/_bpf
NATIVE := src/startgate/_native/turnstile.$(ARCH).so
APT    := runc crun busybox-static clang llvm libbpf1 libbpf-dev linux-libc-dev gcc libc6-dev python3-venv strace
CLANG  ?= clang

# An engine that is there already is used: Debian's package would remove Docker's own.
ENGINES := $(if $(shell command -v dockerd),,docker.io) $(if $(shell command -v podman),,podman) \
	   $(if $(shell command -v buildah),,buildah) $(if $(shell command -v newuidmap),,uidmap) \
	   $(if $(shell grep -s Y /sys/module/apparmor/parameters/enabled),apparmor)
VM_APT := qemu-system-x86 kmod zstd debian-archive-keyring systemd
ARM64_APT := qemu-system-arm
VM_SYSTEMD = $(PY) vm/vm.py run 6.1 --systemd --rw $(CURDIR) --timeout 1800 --env STARTGATE_TEST_SLOWNESS=15 \
	     --env STARTGATE_TEST_SYSTEMD=1 --env STARTGATE_REQUIRE_KERNEL=1 -- \
	     $(PY) -m pytest -q tests/systemd --tb=short -p no:cacheprovider
KERNELS := 5.10 6.1 6.12 newest 6.1-arm64 newest-arm64-16k
MISSING  = dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(1) 2>/dev/null \
	  | awk '$$2 == "installed" {print $$1}' | sort | comm -13 - <(printf '%s\n' $(1) | sort)
INSTALL  = @missing=$$($(call MISSING,$(1))); if [ -n "$$missing" ]; then \
	  echo "installing" $$missing; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-remove --no-install-recommends $$missing >/dev/null; fi

.PHONY: run test fuzz setup check bpf turnstile apt vm-apt arm64-apt engines-apt lint types unit kernel engines engines-table newest test-newest faults faults-table soak engines-and-vm test-vm test-systemd kernel-table bench bench-check bench-peer clean
run: setup ## a live view of this host's containers, with a demo container
	@$(VENV)/bin/startgate watch --demo

setup: apt $(VENV)/.ready bpf $(NATIVE) ## install what is needed, build the BPF object and the turnstile

check: setup lint types unit ## lint, types and unit tests: seconds

test: setup vm-apt check kernel faults engines-and-vm newest bench-check ## everything: on this kernel, and on a stock 6.1: the source `queue`, systemd

apt: ## Debian packages; apt is asked only when one is missing
	$(call INSTALL,$(APT))
vm-apt:
	$(call INSTALL,$(VM_APT))
arm64-apt:
	$(call INSTALL,$(ARM64_APT))
engines-apt:
	$(if $(strip $(ENGINES)),$(call INSTALL,$(ENGINES)))

$(VENV)/.ready: pyproject.toml hatch_build.py | apt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "startgate needs Python 3.11 or newer"; exit 1; }
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

bpf: $(BPF)/exec_record.x86_64.bpf.o $(BPF)/exec_record.aarch64.bpf.o
$(BPF)/exec_record.x86_64.bpf.o: TARGET := x86
$(BPF)/exec_record.aarch64.bpf.o: TARGET := arm64
$(BPF)/exec_record.%.bpf.o: bpf/exec_record.bpf.c bpf/exec_record.h bpf/vmlinux.h | apt
	@mkdir -p $(BPF)
	$(CLANG) -O2 -g -target bpf -D__TARGET_ARCH_$(TARGET) -I/usr/include/$(ARCH)-linux-gnu -Wall -Wextra -Werror -Wno-unused-parameter -c $< -o $@
	llvm-strip -g $@

turnstile: $(NATIVE)
$(NATIVE): native/turnstile.c bpf/exec_record.h | apt
	@mkdir -p $(@D)
	$(CC) -O2 -fPIC -shared -pthread -Wall -Wextra -Werror -o $@ $<

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
types:
	$(VENV)/bin/mypy
unit:
	$(PY) -m pytest -q tests/unit
kernel: ## real containers on this kernel; where that can't hold them, all of it in the VM
	@if $(VENV)/bin/startgate doctor >/dev/null; then \
	  STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/kernel; \
	else \
	  echo "this machine can't hold containers (startgate doctor): its kernel tests run in a VM"; \
	  $(PY) vm/matrix.py run 6.1 --all; \
	fi

faults: setup ## the worker killed, stopped, hung; the host short of things: nobody hangs, nothing is missed
	@mkdir -p build
	@if $(VENV)/bin/startgate doctor >/dev/null; then \
	  STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/faults --junitxml=build/faults.xml; \
	else \
	  echo "this machine can't hold containers (startgate doctor): faults are not tested"; \
	fi
faults-table: ## write the table of docs/daemon.md from the results of `make faults`
	$(PY) -m tests.faults.table build/faults.xml
soak: ## the long forms of the fault tests: many minutes
	STARTGATE_SOAK=1 $(MAKE) --no-print-directory faults

engines: setup engines-apt ## real Docker, containerd, Podman, Buildah, in directories of their own
	@mkdir -p build
	@if $(VENV)/bin/startgate doctor >/dev/null; then \
	  STARTGATE_REQUIRE_KERNEL=1 STARTGATE_REQUIRE_ENGINES=1 $(PY) -m pytest -q tests/engines --junitxml=build/engines.xml; \
	else \
	  echo "this machine can't hold containers (startgate doctor): the engines are not tested"; \
	fi
engines-and-vm: setup vm-apt # side by side: the VM takes one CPU for minutes, and waits for nothing
	@mkdir -p build
	@{ nice $(PY) vm/matrix.py run 6.1 --quick && nice $(VM_SYSTEMD); } >build/vm.log 2>&1 & vm=$$!; \
	$(MAKE) --no-print-directory engines; engines=$$?; \
	wait $$vm; vm=$$?; cat build/vm.log; exit $$((engines | vm))
engines-table: ## write the tables of docs/engines.md from the results of `make engines` and `make test-newest`
	$(PY) -m tests.engines.table build/engines.xml $(wildcard build/newest.xml)

NEWEST := /var/cache/startgate/newest
test-newest: setup ## the containerd and runc tests with the newest releases, built from source: needs Go
	@mkdir -p build
	tests/engines/newest build $(NEWEST)
	PATH=$(NEWEST):$$PATH STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q -k "not crun" --junitxml=build/newest.xml \
	  tests/engines/test_ctr.py tests/engines/test_cri.py \
	  tests/kernel/test_{ways,callbacks,exits,death,binaries,load,trust,bad_input,pid_namespace}.py
newest: # as a part of `test`: where it can be done
	@if ! $(VENV)/bin/startgate doctor >/dev/null; then \
	  echo "this machine can't hold containers (startgate doctor): the newest runtimes are not tried"; \
	elif tests/engines/newest can-build; then $(MAKE) --no-print-directory test-newest; fi

KERNEL ?= $(KERNELS)
test-vm: setup vm-apt $(if $(findstring arm64,$(KERNEL)),arm64-apt) ## the kernel tests on other kernels, in virtual machines; KERNEL=6.1 for one
	$(PY) vm/matrix.py run $(KERNEL)
test-systemd: setup vm-apt ## the unit of packaging/ under a systemd that is PID 1, in a 6.1 VM
	$(VM_SYSTEMD)
kernel-table: ## write README's table from the results of `make test-vm` and a native run
	$(PY) vm/matrix.py table

bench: setup ## what startgate costs: build/bench.json, docs/performance.md; QUICK=1 for three minutes
	$(PY) bench/bench.py $(if $(QUICK),--quick,--document docs/performance.md)

bench-check: setup ## is it slower than it was? ratios only; under a minute
	$(PY) bench/check.py

# The peer is built outside this checkout, e.g. `go build` in inspektor-gadget's examples/container-hook.
PEER ?= /usr/local/bin/container-hook
bench-peer: setup vm-apt ## startgate beside another watcher, in a stock 6.1 VM: PEER=PROGRAM
	@mkdir -p build/peer && install $(PEER) build/peer/watcher
	python3 vm/vm.py run 6.1 --rw $(CURDIR) --env STARTGATE_TEST_SLOWNESS=15 --timeout 7200 -- \
	  $(PY) bench/peer.py --command $(CURDIR)/build/peer/watcher --name $(notdir $(PEER)) \
	  --pattern 'Container added: (\S+)' --stop-pattern 'Container removed: (\S+)' --document docs/performance.md

SECONDS ?= 60
TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))
fuzz: setup ## each fuzz target for SECONDS=60; TARGETS=config for one
	@$(VENV)/bin/python -c 'import atheris' 2>/dev/null || \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@mkdir -p .fuzz; for target in $(TARGETS); do echo "== $$target"; \
	  $(PY) -m fuzz.run $$target $(SECONDS) >.fuzz/$$target.log 2>&1 || \
	  { tail -n 40 .fuzz/$$target.log; exit 1; }; grep -a number_of_executed .fuzz/$$target.log; done

clean:
	rm -rf $(VENV) $(BPF) build dist .coverage .hypothesis .fuzz
	find . -name __pycache__ -prune -exec rm -rf {} +
