"""Was it the kernel's OOM killer? Told for an init that was killed, and only then."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, Runtime, types

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
        told = types(watched.of(name))
        killed = [event for event in watched.of(name) if event.type == "oom"]
    check(stopped, source, oom_killed=True)
    if source == "procfs":
        assert not killed
        return
    (event,) = killed
    assert told[-2:] == ["oom", "stopped"]
    assert event.container and event.victim
    assert (event.victim.pid, event.victim.comm) == (event.container.pid, "tail")
    assert is_within(event)


def is_within(event: Event) -> bool:
    """The cgroup of the victim is the container's: by the path, and by the number in the same hierarchy."""
    assert event.container and event.container.cgroup and event.victim
    return event.victim.cgroup.path == event.container.cgroup.path and bool(event.victim.cgroup.id)


@pytest.mark.parametrize("namespace", ["pid", "host pid"])
def test_a_process_that_is_not_the_init(
    namespace: str, source: str, runtime: Runtime, greedy: Path, name: str, watching: Watching
) -> None:
    """The init lives on, and ends as it likes; two children are killed, one after the other."""
    path = greedy / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["process"]["args"] = [
        "/bin/sh",
        "-c",
        "echo 1000 >/proc/self/oom_score_adj; tail /dev/zero; tail /dev/zero; exit 7",
    ]
    if namespace != "pid":
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
    path.write_text(json.dumps(config))
    with watching(exec_records=source) as watched:
        runtime("run", "-b", str(greedy), name, check=False)
        stopped = watched.wait_for("stopped", name)
        told = types(watched.of(name))
        killed = [event for event in watched.of(name) if event.type == "oom"]
    if source == "procfs":
        assert not killed
        return
    assert stopped.exit and (stopped.exit.code, stopped.exit.oom_killed) == (7, False)
    assert told[-3:] == ["oom", "oom", "stopped"]
    assert len({event.victim.pid for event in killed if event.victim}) == 2
    for event in killed:
        assert event.victim and event.victim.comm == "tail" and is_within(event)
        assert event.container and event.container.pid != event.victim.pid


def test_somebody_elses_process(runc: Runtime, greedy: Path, name: str, watching: Watching) -> None:
    """A process in the container's cgroup that is in none of its namespaces is not the container's."""
    config = greedy / "config.json"
    config.write_text(config.read_text().replace('"/bin/tail", "/dev/zero"', '"/bin/sleep", "1000"'))
    with watching() as watched:
        runc("run", "-d", "-b", str(greedy), name, detached=True)
        created = watched.wait_for("created", name)
        assert created.container and created.container.pid
        join = []
        for line in Path(f"/proc/{created.container.pid}/cgroup").read_text().splitlines():
            _, kind, group = line.split(":", 2)
            root = Path("/sys/fs/cgroup") / (
                kind or ("unified" if Path("/sys/fs/cgroup/unified").exists() else "")
            )
            if group != "/" and (root / group.strip("/") / "cgroup.procs").exists():
                join.append(f"echo $$ >{root}{group}/cgroup.procs")
        assert join
        greedily = f"{'; '.join(join)}; echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero"
        done = subprocess.run(["/bin/sh", "-c", greedily], check=False, timeout=PATIENCE)
        assert done.returncode == -signal.SIGKILL
        runc("delete", "-f", name)
        watched.wait_for("stopped", name)
    assert "oom" not in types(watched.events)


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
