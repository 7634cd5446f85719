from __future__ import annotations

import pytest

from startgate.gates.keys import Named, look_up, of_user, plain
from startgate.lifecycle import Key
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command, Invocation
from tests.unit.fakes import FakeHost

TID = 42
MOUNTS = 4026531841
"""The mount namespace of FakeHost's processes."""


def record(uid: int = 0) -> ExecRecord:
    return ExecRecord(TID, TID, 1, not uid, [], complete=True, uid=uid)


def named(host: FakeHost, command: Command, root: str | None, path: str) -> Named | None:
    """What a command means that is executed in /srv by somebody who sees the host's own root directory."""
    (host.root / "srv").mkdir(exist_ok=True)
    host.process(1, namespaces={"mnt": MOUNTS})
    host.process(TID, cwd=host.root / "srv", namespaces={"mnt": MOUNTS})
    return plain(host.proc, Invocation(command, "c1", root=root), path, record())


@pytest.mark.parametrize(
    ("root", "path", "key"),
    [
        (None, "/usr/sbin/runc", "/run/runc"),
        (None, "/usr/bin/crun", "/run/crun"),
        ("", "/usr/bin/crun", "/run/crun"),
        ("/run/containerd/runc/k8s.io", "/usr/sbin/runc", "/run/containerd/runc/k8s.io"),
        ("/var/run/docker/runtime-runc/moby", "/usr/sbin/runc", "/run/docker/runtime-runc/moby"),
        ("/var/run/x/", "/usr/sbin/runc", "/run/x"),
        ("/var//run/./x", "/usr/sbin/runc", "/run/x"),
        ("/var/running/x", "/usr/sbin/runc", "/var/running/x"),
        ("/srv/a/../b", "/usr/sbin/runc", "/srv/b"),
    ],
)
def test_a_container_is_known_by_its_state_directory(
    host: FakeHost, root: str | None, path: str, key: str
) -> None:
    assert named(host, Command.CREATE, root, path) == (Key(key, "c1"), key)


@pytest.mark.parametrize(("one", "other"), [("//run/runc", "/run/runc"), ("/var/run", "/run")])
def test_one_directory_is_one_key(host: FakeHost, one: str, other: str) -> None:
    assert named(host, Command.CREATE, one, "runc") == (Key(other, "c1"), other)


@pytest.mark.parametrize("command", [Command.CREATE, Command.START, Command.DELETE])
def test_a_relative_directory_of_runc_is_below_the_callers(host: FakeHost, command: Command) -> None:
    assert named(host, command, "a/../state", "runc") == (Key("/srv/state", "c1"), "/srv/state")


def test_a_relative_directory_of_crun_is_below_the_bundle(host: FakeHost) -> None:
    (host.root / "srv/bundle").mkdir(parents=True)
    assert named(host, Command.CREATE, "state", "crun") is None
    call = Invocation(Command.CREATE, "c1", root="state", bundle="bundle")
    assert look_up(host.proc, call, "crun", record()).key == Key("/srv/bundle/state", "c1")
    call = Invocation(Command.START, "c1", root="bundle/state")
    assert look_up(host.proc, call, "crun", record()).key == Key("/srv/bundle/state", "c1")


def test_crun_goes_up_from_where_a_link_leads(host: FakeHost) -> None:
    (host.root / "srv/real/deep").mkdir(parents=True)
    (host.root / "srv/link").symlink_to("real/deep")
    assert named(host, Command.START, "/srv/link/../state", "crun") is None
    call = Invocation(Command.START, "c1", root="/srv/link/../state")
    assert look_up(host.proc, call, "crun", record()).key == Key("/srv/real/state", "c1")
    assert look_up(host.proc, call, "runc", record()).key == Key("/srv/state", "c1")


def test_who_may_see_other_mounts_is_looked_up(host: FakeHost) -> None:
    host.process(1, namespaces={"mnt": MOUNTS})
    host.process(TID, namespaces={"mnt": MOUNTS + 1})
    call = Invocation(Command.START, "c1")
    assert plain(host.proc, call, "runc", record()) is None
    assert look_up(host.proc, call, "runc", record()) == (Key("/run/runc", "c1"), "/run/runc")


def test_a_chroot_has_containers_of_its_own(host: FakeHost) -> None:
    (host.root / "srv/root/run").mkdir(parents=True)
    host.process(1, namespaces={"mnt": MOUNTS})
    host.process(TID, root=host.root / "srv/root", namespaces={"mnt": MOUNTS})
    call = Invocation(Command.START, "c1")
    assert plain(host.proc, call, "runc", record()) is None
    key, root = look_up(host.proc, call, "runc", record())
    assert root == "/run/runc"
    assert key.root != "/run/runc" and key.root.endswith("/srv/root/run/runc")


@pytest.mark.parametrize(
    ("path", "command", "root", "bundle", "key"),
    [
        ("runc", Command.START, "state", None, "/srv/state"),
        ("runc", Command.CREATE, "state", "bundle", "/srv/state"),
        ("crun", Command.CREATE, "state", "bundle", "/srv/bundle/state"),
        ("crun", Command.CREATE, "state", "/b", "/b/state"),
        ("crun", Command.CREATE, "/s", "/b", "/s"),
        ("crun", Command.START, "state", None, "/srv/state"),
        ("crun", Command.START, None, None, "/run/crun"),
    ],
)
def test_a_users(
    host: FakeHost, path: str, command: Command, root: str | None, bundle: str | None, key: str
) -> None:
    host.process(TID, cwd=host.root / "srv", uid=1000)
    call = Invocation(command, "c1", root=root, bundle=bundle)
    assert of_user(host.proc, call, path, record(1000)) == (Key(key, "c1", 1000), key)
