"""What runs already: from state directories and a /proc that are made of files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from startgate.events import Caller
from startgate.lifecycle import Key
from startgate.running import Running, Scan
from startgate.runtimes import roots
from tests.unit.fakes import FakeHost

CONFIG = {"process": {"args": ["sleep", "5"]}, "hostname": "web", "root": {"path": "rootfs"}}


class Host(FakeHost):
    """A host on which containers run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.process(1, comm="systemd")
        self.process(2, comm="kthreadd")

    def run(self, pid: int, *words: str, ppid: int = 1, uid: int = 0, cwd: Path | None = None) -> Path:
        user = os.stat("/proc/self/ns/user").st_ino
        directory = self.process(pid, ppid=ppid, uid=uid, namespaces={"user": user, "mnt": 7}, cwd=cwd)
        (directory / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
        (directory / "cgroup").write_text("0::/\n")
        return directory

    def bundle(self, path: str, **config: Any) -> Path:
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(CONFIG | config))
        return directory

    def runc(
        self, identity: str, pid: int, bundle: str, *, root: str = "/run/runc", start: int = 100
    ) -> Path:
        directory = self.root / root.lstrip("/") / identity
        directory.mkdir(parents=True)
        state = {"id": identity, "init_process_pid": pid, "init_process_start": start}
        (directory / "state.json").write_text(
            json.dumps(state | {"config": {"labels": [f"bundle={bundle}"]}})
        )
        return directory

    def crun(self, identity: str, bundle: str, **state: int) -> None:
        directory = self.root / "run/crun" / identity
        directory.mkdir(parents=True)
        (directory / "status").write_text(json.dumps(state | {"bundle": bundle}))

    def scan(self) -> list[Running]:
        return list(Scan(self.proc, frozenset()))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def test_a_runc_and_a_crun_container(host: Host) -> None:
    host.bundle("/b")
    host.run(10, "sleep")
    host.run(11, "sleep")
    host.runc("c1", 10, "/b")
    host.crun("c2", "/b", pid=11, **{"process-start-time": 100})
    one, two = host.scan()
    assert (one.key, two.key) == (Key("/run/runc", "c1"), Key("/run/crun", "c2"))
    assert (one.process.pid, two.process.pid) == (10, 11)
    assert (one.container.runtime, two.container.runtime) == ("runc", "crun")
    for found in (one, two):
        container = found.container
        assert (container.bundle, container.rootfs) == ("/b", "/b/rootfs")
        assert (container.args, container.hostname, container.uid) == (("sleep", "5"), "web", 0)
        assert (container.runtime_path, container.started_by, container.namespaces.mnt) == (None, None, 7)
        assert found.started


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["runc", "--root", "/other", "run", "c1"], "/run/runc"),
        (["conmon", "--runtime-arg", "--root=/other", "-c", "c1"], "/other"),
    ],
    ids=["the usual", "an engine's"],
)
def test_two_names_of_a_state_directory(host: Host, command: list[str], kept: str) -> None:
    """Its containers are told once: under the name that will be used again."""
    host.bundle("/b")
    host.run(10, "sleep")
    host.runc("c1", 10, "/b")
    (host.root / "other").symlink_to("run/runc")
    host.run(20, *command)
    assert [found.key for found in host.scan()] == [Key(kept, "c1")]


def test_a_created_one_waits_at_its_fifo(host: Host) -> None:
    host.bundle("/b")
    host.run(10, "runc", "init")
    directory = host.runc("c1", 10, "/b")
    os.mkfifo(directory / "exec.fifo")
    assert [found.started for found in host.scan()] == [False]


def test_a_bundle_that_is_gone(host: Host) -> None:
    host.run(10, "sleep")
    host.runc("c1", 10, "/gone")
    (found,) = host.scan()
    assert (found.container.id, found.container.pid, found.container.args) == ("c1", 10, ())
    assert found.config is None


@pytest.mark.parametrize("state", ["dead", "reused", "zombie", "other id", "a user's pid 0"])
def test_what_is_no_container(host: Host, state: str) -> None:
    host.bundle("/b")
    directory = host.runc("c1", 0 if "pid 0" in state else 10, "/b", start=99 if state == "reused" else 100)
    if state != "dead":
        process = host.run(10, "sleep")
    if state == "zombie":
        text = (process / "stat").read_text()
        (process / "stat").write_text(text.replace(") S ", ") Z "))
    if state == "other id":
        directory.rename(directory.with_name("c2"))
    assert host.scan() == []


def test_without_start_time_a_process_of_the_host_is_no_init(host: Host) -> None:
    host.bundle("/b")
    host.crun("c1", "/b", pid=2)
    host.crun("c2", "/b", pid=10)
    host.run(10, "sleep")
    assert [found.key.id for found in host.scan()] == ["c2"]


def test_of_a_runtime_in_the_foreground(host: Host) -> None:
    bundle = host.bundle("/b")
    (host.run(20, "runc", "--root", "/elsewhere", "run", "c1", ppid=30) / "exe").symlink_to("/opt/myrunc")
    host.process(30, comm="bash")
    host.run(10, "sleep", ppid=20)
    host.runc("c1", 10, str(bundle.relative_to(host.root)), root="/elsewhere")
    (found,) = host.scan()
    assert found.container.started_by == Caller(30, "bash")
    assert (found.container.runtime, found.container.runtime_path) == ("myrunc", "/opt/myrunc")


def test_of_a_shim(host: Host) -> None:
    """Its options tell the state directory; the bundle tells the runtime."""
    path = "/state/io.containerd.runtime.v2.task/ns/c1"
    bundle = host.bundle(path)
    (bundle / "options.json").write_text('{"binary_name": "/opt/runc", "root": "/exec/runc"}')
    (bundle / "runtime").write_text("/opt/runc")
    host.run(20, "/usr/bin/containerd-shim-runc-v2", "-namespace", "ns", "-id", "c1", cwd=bundle)
    host.run(10, "sleep", ppid=20)
    host.runc("c1", 10, path, root="/exec/runc/ns")
    (found,) = host.scan()
    assert found.key.root == "/exec/runc/ns"
    assert (found.container.engine, found.container.runtime_path) == ("containerd", "/opt/runc")
    assert found.container.started_by == Caller(20, "init")


def test_of_a_conmon(host: Host) -> None:
    host.bundle("/b", annotations={"io.container.manager": "libpod"})
    words = (
        "/usr/bin/conmon",
        "-c",
        "c1",
        "-n",
        "web",
        "-r",
        "/opt/crun",
        "--runtime-arg",
        "--root=/exec/crun",
    )
    host.run(20, *words)
    host.run(10, "sleep", ppid=20)
    host.runc("c1", 10, "/b", root="/exec/crun")
    (found,) = host.scan()
    assert (found.container.engine, found.container.name) == ("podman", "web")
    assert (found.container.runtime, found.container.runtime_path) == ("crun", "/opt/crun")


def test_an_orphan_of_a_subreaper(host: Host, tmp_path: Path) -> None:
    """Who adopted it need not see what its runtime saw: a session's manager, in a root of its own."""
    bundle = host.bundle("/b")
    host.run(20, "/usr/bin/tmux").joinpath("root").unlink()
    (host.root / "proc/20/root").symlink_to(tmp_path)
    host.run(10, "sleep", ppid=20)
    host.runc("c1", 10, str(bundle.relative_to(host.root)))
    (found,) = host.scan()
    assert found.container.args == ("sleep", "5")
    assert found.container.started_by is None


def test_what_users_run_is_not_believed(host: Host) -> None:
    """Neither the directory that it names, nor what it says of a container of root."""
    host.bundle("/b")
    words = "/usr/bin/conmon -c c1 -n evil -r /evil/runc --runtime-arg --root=/evil"
    host.run(20, *words.split(), uid=1000)
    host.run(10, "sleep", ppid=20)
    host.runc("c2", 10, "/b", root="/evil")
    assert host.scan() == []
    host.runc("c1", 10, "/b")
    (found,) = host.scan()
    assert (found.container.runtime_path, found.container.started_by) == (None, None)


def test_the_config_json_itself(host: Host) -> None:
    bundle = host.bundle("/b", annotations={"a": "b"})
    host.run(10, "sleep")
    host.runc("c1", 10, "/b")
    (found,) = host.scan()
    assert Scan(host.proc, frozenset()).config_json(found) == (bundle / "config.json").read_bytes()


# roots


@pytest.mark.parametrize(
    ("command", "options", "root"),
    [
        (
            "shim -namespace moby -id x",
            '{"root": "/var/run/docker/runtime-runc"}',
            "/run/docker/runtime-runc/moby",
        ),
        ("shim -namespace moby -id x", '{"root": ""}', None),
        ("shim -namespace moby -id x", "{}", None),
        ("shim -namespace moby -id x", "junk", None),
        ("shim -namespace moby -id x", '{"root": "relative"}', None),
        ("shim -namespace", '{"root": "/r"}', None),
        ("shim", '{"root": "/r"}', None),
    ],
)
def test_the_state_directory_of_a_shim(command: str, options: str, root: str | None) -> None:
    assert roots.of_shim(command.split(), options.encode()) == root


@pytest.mark.parametrize(
    ("arguments", "root"),
    [
        ("", None),
        ("--runtime-arg --root=/r", "/r"),
        ("--runtime-arg=--root=/r", "/r"),
        ("--runtime-arg --root --runtime-arg /r", "/r"),
        ("--runtime-arg --log-format=json --runtime-arg --root=/var/run/r/", "/run/r"),
        ("--runtime-arg --root", "."),
        ("--runtime-arg", None),
        ("--root /r", None),
    ],
)
def test_the_state_directory_of_a_conmon(arguments: str, root: str | None) -> None:
    assert roots.of_conmon(["conmon", *arguments.split()]) == root


def test_the_usual_ones_that_exist(host: Host) -> None:
    for path in ("run/runc", "run/containerd/runc/k8s.io", "run/docker/runtime-runc/moby", "run/other"):
        (host.root / path).mkdir(parents=True)
    found = roots.usual(str(host.root))
    assert found == ["/run/runc", "/run/docker/runtime-runc/moby", "/run/containerd/runc/k8s.io"]
