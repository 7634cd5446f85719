"""Fixtures: the unit, installed and active; containers to start under it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.kernel.conftest import _kernel, runc  # noqa: F401
from tests.kernel.support import SLOWNESS, Runtime
from tests.kernel.test_hooks import examples
from tests.systemd import service

HANG_LIMIT = max(2.0, 3 * SLOWNESS)
"""The next worker is to be ready within it."""
HOOKS = Path("/usr/local/lib/startgate")
CONFIG = f"""
hold_timeout = {2 * HANG_LIMIT}
policy = ["rules.toml"]

[[hook]]
on = ["created"]
match = 'container.id.startsWith("hooked-")'
command = ["/bin/sh", "-c", 'cat >"$STATE_DIRECTORY/$STARTGATE_CONTAINER_ID"']
timeout = 20
on_failure = "deny"

[[hook]]
on = ["created"]
match = 'container.id.startsWith("held-")'
command = "sleep 1000"
timeout = 1000

[[hook]]
name = "starts"
on = ["created", "stopped"]
match = 'container.id.startsWith("documented-")'
command = "{HOOKS}/starts"
timeout = 20

[[hook]]
name = "no-redirects"
on = ["created"]
match = 'container.id.startsWith("documented-")'
command = "{HOOKS}/no-redirects"
timeout = 20
on_failure = "deny"

[[hook]]
on = ["created"]
match = 'container.id.startsWith("documented-")'
command = "sh -c 'logger --tag hooks seen-$STARTGATE_CONTAINER_ID'"
timeout = 20
on_failure = "deny"

[[hook]]
name = "outside"
on = ["created"]
match = 'container.id.startsWith("outside-")'
command = "systemd-run --quiet --wait --pipe --collect --setenv=STARTGATE_PID {HOOKS}/outside"
timeout = 60
on_failure = "deny"
"""
OUTSIDE = """#!/bin/sh
grep -q '"created"' && echo "$STARTGATE_PID" >/var/log/outside && echo "no, said it outside" >&2 && exit 3
"""
RULES = """
[[rule]]
name = "no-denied"
match = 'container.id.startsWith("denied-")'
action = "deny"
message = "not on this node"

[[rule]]
name = "read-only"
match = 'container.id.startsWith("patched-")'
action = "patch"
[rule.patch]
read_only_rootfs = true
"""
Start = Callable[..., subprocess.CompletedProcess[str]]
Running = Callable[[str], AbstractContextManager[None]]
_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _arena() -> None:
    """The unit is the whole system's: it watches the runtimes that are installed."""


@pytest.fixture(scope="session", autouse=True)
def _installed(_kernel: None) -> None:  # noqa: F811
    if os.environ.get("STARTGATE_TEST_SYSTEMD") != "1":
        pytest.skip("installs a unit on this machine: make test-systemd does so in a VM")
    directory = Path("/etc/startgate")
    directory.mkdir(mode=0o700)
    (directory / "config.toml").write_text(CONFIG)
    (directory / "rules.toml").write_text(RULES)
    HOOKS.mkdir(parents=True)
    for text in (*examples("sh"), OUTSIDE.replace("\n", "\n# outside:\n", 1)):
        script = HOOKS / text.split("# ")[1].split(":")[0]
        script.write_text(text)
        script.chmod(0o755)
    service.install("--hang-limit", str(HANG_LIMIT))


@pytest.fixture(autouse=True)
def _active(_installed: None) -> Iterator[None]:
    service.systemctl("start", service.NAME)
    yield
    print(*(line[:200] for line in service.journal()[-20:]), sep="\n")  # pytest shows it of what failed


@pytest.fixture
def start(runc: Runtime, tmp_path: Path) -> Start:  # noqa: F811
    """Run a container to its end; the prefix of its id says what is to happen to it."""

    def run(container: str, program: str = "exit 7") -> subprocess.CompletedProcess[str]:
        bundle = make_bundle(tmp_path / container, ["/bin/sh", "-c", program])
        return runc("run", "-b", str(bundle), container, check=False)

    return run


@pytest.fixture
def running(runc: Runtime, tmp_path: Path) -> Running:  # noqa: F811
    """Keep a container for the length of a block."""

    @contextmanager
    def run(container: str) -> Iterator[None]:
        bundle = make_bundle(tmp_path / container, ["/bin/sleep", "1000"])
        runc("run", "--detach", "-b", str(bundle), container, detached=True)
        yield
        runc("delete", "-f", container)

    return run


@pytest.fixture
def name() -> Callable[[str], str]:
    """Container ids that no other test uses: of each prefix."""
    return lambda prefix: f"{prefix}-{next(_numbers)}"
