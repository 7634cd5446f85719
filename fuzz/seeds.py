"""Write the seeds in corpus/: ``python -m fuzz.seeds``, as root, with runc and crun installed.

From real invocations (tests/data), a real container's files, this machine's /proc, and a few
bytes by hand where only an engine could write the file.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.kernel.support import Runtime, find_runtime

from startgate.records import layout
from startgate.testing import make_bundle

_CORPUS = Path(__file__).parent / "corpus"
_INVOCATIONS = Path(__file__).parent.parent / "tests/data/runtime-invocations.json"
_EACH = 12  # seeds of a kind that are kept: the shapes, not the history

_DOCKER = {
    "ID": "c",
    "Name": "/web",
    "Config": {"Image": "nginx:1", "Labels": {"com.example.tier": "front"}},
    "State": {"Running": False},
}
_PODMAN = [
    {"id": "c", "names": ["web"], "metadata": json.dumps({"image-name": "docker.io/library/nginx:1"})},
    {"id": "other", "names": None},
]
_PODMAN_TABLE = "CREATE TABLE ContainerConfig (ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE, JSON TEXT)"
_PODMAN_ROW = {"id": "c", "name": "web", "labels": {"a": "b"}, "rootfsImageName": "docker.io/library/nginx:1"}
_CRI = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.image-name": "registry/app:1",
    "io.kubernetes.cri.sandbox-id": "5a",
    "io.kubernetes.cri.sandbox-name": "app-0",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-uid": "0-1",
}
_CRIO = {
    "io.kubernetes.cri-o.ContainerType": "sandbox",
    "io.kubernetes.cri-o.SandboxID": "5a",
    "io.kubernetes.pod.name": "app-0",
    "io.kubernetes.pod.namespace": "default",
}
_PROCESS = {
    "terminal": True,
    "user": {"uid": 7, "gid": 7},
    "args": ["sh", "-c", "id"],
    "env": ["A=B"],
    "cwd": "/tmp",
}

_CONFIGURATION = b"""\
hold_timeout = 1.5
policy = ["rules.toml"]
[[hook]]
name = "n"
on = ["created"]
command = ["/bin/true"]
"""
_RULES = Path(__file__).parent.parent / "src/startgate/policy/rules.toml"
_MOUNTINFO = b"""\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
25 22 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
26 22 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct,release_agent=/x
27 22 0:25 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw
28 22 0:26 / /var/lib/x/merged rw - overlay overlay rw,lowerdir=/l/1:/l/a\\134:b::/d,upperdir=/u,workdir=/w
"""
_METADATA = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_EVENTS = ((0x40000, 7), (0x20000, 8), (0x4000, -1))


def podman_databases() -> Iterator[bytes]:
    """A small SQLite database: the row that is asked for is on an overflow page."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "db.sql")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA page_size=512")
            database.execute(_PODMAN_TABLE)
            for identity in ("a", "c", "d"):
                row = json.dumps(_PODMAN_ROW | {"id": identity, "spec": "x" * 700})
                database.execute("INSERT INTO ContainerConfig VALUES (?, ?, ?)", (identity, identity, row))
        yield path.read_bytes()


def command_lines() -> Iterator[bytes]:
    """The runtimes' command lines, one of each shape."""
    shapes = {}
    for entry in json.loads(_INVOCATIONS.read_text()):
        if entry["binary"] in ("runc", "crun"):
            words = [word for word in entry["argv"] if word.startswith("-") or word.isalpha()]
            shapes[tuple(words)] = "\0".join(entry["argv"]).encode()
    yield from list(shapes.values())[: 4 * _EACH]


def container_files(runtime: Runtime, state: str) -> Iterator[bytes]:
    """The state file of a container that was created."""
    with tempfile.TemporaryDirectory() as directory:
        bundle = make_bundle(Path(directory) / "bundle", ["/bin/true"])
        runtime("create", "-b", str(bundle), "seed", detached=True)
        try:
            yield Path(state).read_bytes()
        finally:
            runtime("delete", "-f", "seed")


def specs() -> Iterator[bytes]:
    """What `spec` writes, and a bundle of ours."""
    with tempfile.TemporaryDirectory() as directory:
        for command in (["runc", "spec"], ["runc", "spec", "--rootless"], ["crun", "spec"]):
            Path(directory, "config.json").unlink(missing_ok=True)
            subprocess.run(command, cwd=directory, check=True)
            yield Path(directory, "config.json").read_bytes()
        bundle = make_bundle(Path(directory) / "bundle", ["sh"])
        yield bundle.joinpath("config.json").read_bytes()


def proc_files() -> Iterator[bytes]:
    """/proc/self/*, each behind the number of its reader."""
    names = ("stat", "status", "cgroup", "cmdline", "syscall", "status", "stat")
    for number, name in enumerate(names):
        yield bytes([number]) + Path("/proc/self", name).read_bytes()


def exec_records() -> Iterator[bytes]:
    """A record with arguments, and one that knows nothing."""
    words = b"runc\0run\0--bundle\0/b\0c\0"
    for tgid in (42, 0):
        header = layout.HEADER.pack(1, 1, 42, tgid, 1, 0, 0, 0, 5, len(words), b"", 0, 0, b"sh", b"sh")
        yield header + words


def json_of(*values: object) -> Iterator[bytes]:
    """Values as JSON."""
    return (json.dumps(value).encode() for value in values)


def write(target: str, seeds: Iterator[bytes]) -> None:
    """Write the seeds of a target."""
    directory = _CORPUS / target
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for number, seed in enumerate(seeds):
        (directory / f"{number:02}").write_bytes(seed)


def states() -> Iterator[bytes]:
    """state.json and status, each behind the number of its runtime."""
    places = {"runc": "/run/runc/seed/state.json", "crun": "/run/crun/seed/status"}
    for number, (name, path) in enumerate(places.items()):
        runtime = find_runtime(name)
        assert runtime, f"{name} is not installed"
        for data in container_files(runtime, path):
            yield bytes([number]) + data


def main() -> None:
    """Write all seeds."""
    write("command_line", command_lines())
    write("config", specs())
    write("process_file", json_of(_PROCESS))
    write("notes", json_of(_CRI, _CRIO, {"nerdctl/name": "web"}, {}))
    write("docker_config", json_of(_DOCKER))
    write("podman_containers", json_of(_PODMAN))
    write("podman_database", podman_databases())
    write("runtime_state", states())
    write("proc_file", proc_files())
    write("mountinfo", iter([_MOUNTINFO]))
    write("fanotify_record", (_METADATA.pack(24, 3, 0, 24, mask, fd, 42) for mask, fd in _EVENTS))
    write("exec_record", exec_records())
    write(
        "shim", iter([b'{"root": "/run/containerd/runc"}', b"conmon\0--runtime-arg\0--root=/run/x\0-c\0id"])
    )
    write("containerenv", iter([b'engine="buildah-1.28"\nname="b"\nid="x"\nimage="docker.io/library/i:1"\n']))
    write("patched_config", specs())
    write("configuration", iter([_CONFIGURATION, _RULES.read_bytes()]))
    write("signal_name", iter([b"9", b"KILL", b"SIGTERM", b"rtmin+1"]))


if __name__ == "__main__":
    main()
