"""A watcher in a child pid namespace holds and reports the host's containers, by host pids."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from startgate.kernel.capabilities import capability_names
from startgate.kernel.process import Proc
from startgate.testing import make_bundle, write_config
from tests.kernel.support import PATIENCE, STARTGATE, Runtime, eventually, read_as_an_engine, types_of

WATCH = ["watch", "--no-existing", "-o", "json"]
# A container's view: its own pid, mount and cgroup namespaces, the host's root below a directory.
ENTER = """
set -e
mount --make-rprivate /
mkdir -p {host}
mount --rbind / {host}
exec unshare --kill-child --pid --fork --mount-proc --cgroup "$@"
"""


@contextmanager
def inside(host: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run startgate in namespaces of its own; the host's root is at `host`."""
    command = ["unshare", "-m", "sh", "-c", ENTER.format(host=host), "sh", *STARTGATE]
    with popen([*command, *arguments]) as process:
        yield process


@contextmanager
def in_container(runc: Runtime, directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run startgate in a privileged container; the host's root is at /host."""
    bundle = make_bundle(directory / "agent", [*STARTGATE, *arguments])
    everything = list(capability_names(int(Proc().status(os.getpid())["CapBnd"], 16)))
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), everything)
    config["process"]["cwd"] = os.getcwd()
    config["process"]["env"] = [
        f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ
    ]
    config["linux"]["namespaces"].append({"type": "cgroup"})
    own = {"proc", "dev", "sys", "run", "tmp", "host"}
    for name in sorted(set(os.listdir("/")) - own):
        if os.path.isdir(f"/{name}"):
            bind = {"destination": f"/{name}", "source": f"/{name}", "options": ["rbind"]}
            config["mounts"].append(bind)
    here = os.getcwd()  # it may be below /tmp
    config["mounts"].append({"destination": here, "source": here, "options": ["rbind"]})
    config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})  # BTF
    config["mounts"].append({"destination": "/host", "source": "/", "options": ["rbind"]})
    (bundle / "config.json").write_text(json.dumps(config))
    name = f"agent-{bundle.parent.name}"
    try:
        with popen([*runc.prefix, "run", "--bundle", str(bundle), name]) as process:
            yield process
    finally:
        runc("delete", "-f", name, check=False)
        assert eventually(lambda: not _cgroups_left(name))


def _cgroups_left(name: str) -> list[Path]:
    """runc does not wait for long until those of cgroup v1 are not busy any more: remove them."""
    for directory in Path("/sys/fs/cgroup").rglob(name):
        with suppress(OSError):
            directory.rmdir()
    return list(Path("/sys/fs/cgroup").rglob(name))


@contextmanager
def popen(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()  # a runtime passes it on, and then removes the container's cgroups
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.mark.parametrize("source_name", ["table", "queue"])
def test_the_hosts_containers(
    source_name: str, sources: dict[str, str], runc: Runtime, bundle: Path, name: str, tmp_path: Path
) -> None:
    if sources[source_name]:
        pytest.skip(sources[source_name])
    host = tmp_path / "host"
    with inside(host, *WATCH, "--host-root", str(host), "--exec-records", source_name) as process:
        _check(process, runc, bundle, name)


@pytest.mark.parametrize("source_name", ["table", "queue"])
def test_the_hosts_containers_from_a_container(
    source_name: str, sources: dict[str, str], runc: Runtime, bundle: Path, name: str, tmp_path: Path
) -> None:
    if sources[source_name]:
        pytest.skip(sources[source_name])
    with in_container(runc, tmp_path, *WATCH, "--host-root=/host", "--exec-records", source_name) as process:
        _check(process, runc, bundle, name)


def _check(process: subprocess.Popen[str], runc: Runtime, bundle: Path, name: str) -> None:
    """Start containers on the host, and compare what the watcher tells with what the host knows."""
    pid_file = bundle.parent / "pid"
    write_config(bundle, ["/bin/sleep", "1000"])
    assert process.stderr and process.stdout
    ready = process.stderr.readline()
    assert ready.startswith("watching "), ready + process.stderr.read()
    runc("create", "-b", str(bundle), "--pid-file", str(pid_file), f"{name}-1", detached=True)
    pid = int(read_as_an_engine(pid_file))
    namespace, cgroup = os.stat(f"/proc/{pid}/ns/mnt").st_ino, Path(f"/proc/{pid}/cgroup").read_text()
    runc("start", f"{name}-1")
    runc("exec", f"{name}-1", "true")
    runc("kill", f"{name}-1", "KILL")
    write_config(bundle, ["/bin/sh", "-c", "exit 7"])
    runc("run", "-b", str(bundle), f"{name}-2", check=False)
    events: list[dict[str, Any]] = []
    while sum(event["type"] == "stopped" for event in events) < 2:
        event = json.loads(process.stdout.readline())  # others' runtimes may be sighted meanwhile
        if (event["container"] or {"id": ""})["id"].startswith(f"{name}-"):
            events.append(event)
    first = [e for e in events if e["container"]["id"] == f"{name}-1"]
    second = [e for e in events if e["container"]["id"] == f"{name}-2"]
    assert types_of(first) == ["creating", "created", "exec", "exec_ended", "stopped"]
    assert types_of(second) == ["creating", "created", "started", "stopped"]
    created = first[1]["container"]
    assert (created["pid"], created["namespaces"]["mnt"]) == (pid, namespace)
    assert f":{created['cgroup']['path']}\n" in cgroup and created["cgroup"]["id"]
    assert first[1]["gate"] == "pidfile" and created["runtime_path"] == os.path.realpath(runc.prefix[0])
    assert first[0]["container"]["started_by"]["comm"] == "sh"
    assert first[-1]["exit"]["signal"] == 9 and second[-1]["exit"]["code"] == 7
    runc("delete", "-f", f"{name}-1")


@pytest.mark.parametrize("command", ["watch", "doctor"])
def test_without_the_hosts_root_it_says_why(command: str, tmp_path: Path) -> None:
    with inside(tmp_path / "host", command) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert "child pid namespace" in output + errors and "Traceback" not in errors


def test_procfs_can_not_serve_there(tmp_path: Path) -> None:
    host = tmp_path / "host"
    with inside(host, "watch", "--host-root", str(host), "--exec-records", "procfs") as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3 and "child pid namespace" in errors
