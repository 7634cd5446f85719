"""Was it the kernel's OOM killer? Told for an init that was killed, and only then."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime

LIMIT = 6144 * mmap.PAGESIZE  # runc's own init needs half of it, in pages of whatever size


@pytest.fixture
def greedy(bundle: Path) -> Path:
    """Its program takes memory until it is killed: tail(1) looks for the end of an endless line."""
    (bundle / "rootfs/bin/tail").symlink_to("busybox")
    path = bundle / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["process"]["args"] = ["/bin/tail", "/dev/zero"]
    config["mounts"].append(
        {"destination": "/dev/zero", "source": "/dev/zero", "type": "bind", "options": ["bind"]}
    )
    config["linux"]["resources"] = {
        "devices": [{"allow": True, "access": "rwm"}],
        "memory": {"limit": LIMIT, "swap": LIMIT},
    }
    path.write_text(json.dumps(config))
    return bundle


def check(stopped: Event, source: str, *, oom_killed: bool) -> None:
    assert stopped.exit
    if source == "procfs":  # before Linux 6.15 it does not know the end of a process that was reaped
        assert stopped.exit.signal in (9, None)
        assert stopped.exit.oom_killed is None
    else:
        assert (stopped.exit.signal, stopped.exit.oom_killed) == (9, oom_killed)


def test_out_of_memory(source: str, runtime: Runtime, greedy: Path, name: str, watching: Watching) -> None:
    with watching(exec_records=source) as watched:
        runtime("run", "-b", str(greedy), name, check=False)
        stopped = watched.wait_for("stopped", name)
    check(stopped, source, oom_killed=True)


def test_killed_by_somebody(
    source: str, runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    config = bundle / "config.json"
    config.write_text(config.read_text().replace("exit 7", "sleep 1000"))
    with watching(exec_records=source) as watched:
        process = runtime.popen("run", "-b", str(bundle), name)
        watched.wait_for("started", name)
        runtime("kill", name, "KILL")
        stopped = watched.wait_for("stopped", name)
        process.wait()
    check(stopped, source, oom_killed=False)
    runtime("delete", "-f", name, check=False)


def test_one_that_ran_before(runc: Runtime, greedy: Path, name: str, watching: Watching) -> None:
    config = greedy / "config.json"
    wait = '"args": ["/bin/sh", "-c", "read x </tmp/go; exec tail /dev/zero"]'
    config.write_text(config.read_text().replace('"args": ["/bin/tail", "/dev/zero"]', wait))
    os.mkfifo(greedy / "rootfs/tmp/go")
    runc("run", "-d", "-b", str(greedy), name, detached=True)
    with watching(existing=True) as watched:
        watched.wait_for("existing", name)
        (greedy / "rootfs/tmp/go").write_text("go\n")
        stopped = watched.wait_for("stopped", name)
    assert stopped.exit
    assert (stopped.exit.signal, stopped.exit.oom_killed) == (9, True)
    runc("delete", "-f", name, check=False)
