"""A watcher in a child pid namespace holds and reports the host's containers, by host pids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.testing import write_config
from tests.kernel.support import PATIENCE, Runtime, read_as_an_engine, types_of

MAIN = "from startgate.cli import main; main()"
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
    command = ["unshare", "-m", "sh", "-c", ENTER.format(host=host), "sh", sys.executable, "-c", MAIN]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("source_name", ["table", "queue"])
def test_the_hosts_containers(
    source_name: str, sources: dict[str, str], runc: Runtime, bundle: Path, name: str, tmp_path: Path
) -> None:
    if sources[source_name]:
        pytest.skip(sources[source_name])
    write_config(bundle, ["/bin/sleep", "1000"])
    host, pid_file = tmp_path / "host", tmp_path / "pid"
    watch = ["watch", "-o", "json", "--host-root", str(host), "--exec-records", source_name, "--count", "9"]
    with inside(host, *watch) as process:
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
        events = [json.loads(process.stdout.readline()) for _ in range(8)]
    first = [e for e in events if e["container"]["id"] == f"{name}-1"]
    second = [e for e in events if e["container"]["id"] == f"{name}-2"]
    assert types_of(first) == ["creating", "created", "exec", "stopped"]
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
