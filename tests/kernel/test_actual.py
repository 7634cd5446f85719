"""What the kernel says of a container at `created`, however config.json words it; and rules on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from startgate import Event
from startgate.config import tomlfile
from startgate.events import Actual
from startgate.kernel.layers import find_mount
from startgate.policy.rules import Policy, compile_rules
from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime, Watched, read_as_an_engine, types
from tests.kernel.test_truth import edit, holder, save

__all__ = ["holder"]

SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["adjtimex"], "action": "SCMP_ACT_ERRNO"}],
}
DENY_ETC = """
[[rule]]
name = "no-etc"
match = 'container.actual.host_mounts.exists(m, m.host_path == null || m.host_path in ["/", "/etc"])'
action = "deny"
"""


@pytest.fixture
def create(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> Callable[..., Event]:
    """Create the bundle's container, start it, end it; return the event of a type."""

    def create(event: str = "created", callbacks: Any = None, **options: Any) -> Event:
        pid_file = tmp_path / "pid"
        with watching(callbacks, **{"actual": True} | options) as watched:
            runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
            assert read_as_an_engine(pid_file).isdigit()
            runtime("start", name)
            runtime("kill", name, "KILL", check=False)
            watched.wait_for("stopped", name)
            runtime("delete", "-f", name, check=False)
            return watched.wait_for(event, name)

    return create


def of(event: Event) -> Actual:
    assert event.container
    assert event.container.actual
    return event.container.actual


def sleeping(bundle: Path, **process: Any) -> dict[str, Any]:
    document = edit(bundle)
    document["process"] |= {"args": ["/bin/sleep", "1000"]} | process
    return document


def mounted(bundle: Path, *mounts: dict[str, Any]) -> None:
    document = sleeping(bundle)
    document["mounts"] += mounts
    save(bundle, document)


def bind(source: str, *options: str) -> dict[str, Any]:
    return {"destination": "/tmp", "type": "bind", "source": source, "options": ["rbind", *options]}


@contextmanager
def overlay(place: Path, lower: str) -> Iterator[str]:
    """Mount an overlay, as a volume of Docker's is: its options are whatever its user says."""
    place.mkdir()
    options = f"lowerdir={lower}:{place.parent}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(place)], check=True)
    try:
        yield str(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def volume(place: Path, device: str) -> Iterator[str]:
    """As `docker volume create -o type=none -o o=bind -o device=/etc` makes one."""
    place.mkdir()
    subprocess.run(["mount", "--bind", device, str(place)], check=True)
    try:
        yield str(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("way", ["/proc/self/root/etc", "//etc/.", "link", "volume", "overlay", "ro"])
def test_a_mount_of_the_host_in_other_words(
    create: Callable[..., Event], bundle: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "etc").symlink_to("/proc/self/root/etc")
    if way == "volume":
        with volume(tmp_path / "volume", "/etc") as source:
            mounted(bundle, bind(source))
            actual = of(create())
    elif way == "overlay":
        with overlay(tmp_path / "overlay", str(tmp_path / "etc")) as source:
            mounted(bundle, bind(source))
            actual = of(create())
    else:
        source = {"link": str(tmp_path / "link"), "ro": "/etc"}.get(way, way)
        mounted(bundle, bind(source, *(["ro"] if way == "ro" else [])))
        actual = of(create())
    found = {mount.host_path: mount for mount in actual.host_mounts if mount.destination == "/tmp"}
    assert "/etc" in found
    assert found["/etc"].read_only is (way in ("ro", "overlay"))
    assert "mounts" not in actual.differs


def test_a_usual_container_has_nothing_of_the_host(create: Callable[..., Event], bundle: Path) -> None:
    document = sleeping(
        bundle, user={"uid": 1000, "gid": 1000}, capabilities={"bounding": ["CAP_KILL"], "effective": []}
    )
    document["root"]["readonly"] = True
    document["linux"] |= {
        "seccomp": SECCOMP,
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/acpi", "/proc/timer_list"],
        "readonlyPaths": ["/proc/sys", "/proc/irq"],
    }
    save(bundle, document)
    actual = of(create())
    assert (actual.uid, actual.gid, actual.no_new_privileges) == (1000, 1000, True)
    assert actual.bounding_capabilities == ("CAP_KILL",)
    assert actual.read_only_rootfs is True
    assert actual.rootfs == str(bundle / "rootfs")
    assert (actual.host_mounts, actual.differs) == ((), ())
    assert not {"pid", "net", "ipc", "uts", "mnt"} & set(actual.host_namespaces)
    assert [m.type for m in actual.mounts if m.destination in ("/proc", "/dev")] == ["proc", "tmpfs"]


@pytest.mark.parametrize("uid", [0, 1000])
def test_what_is_final_at_created(
    create: Callable[..., Event], runtime: Runtime, bundle: Path, uid: int
) -> None:
    """The table of docs/events.md: runc has installed the filter by then, crun does so after `start`."""
    capabilities = {key: ["CAP_KILL", "CAP_CHOWN"] for key in ("bounding", "effective", "permitted")}
    document = sleeping(bundle, user={"uid": uid, "gid": uid}, capabilities=capabilities)
    document["linux"]["seccomp"] = SECCOMP
    save(bundle, document)
    events: list[Event] = []
    started = of(create("started", {"started": events.append}))
    created = of(create())
    assert created.seccomp == ("filter" if runtime.name == "runc" else None)
    assert started.seccomp == "filter"
    same = ("uid", "gid", "uid_map", "bounding_capabilities", "no_new_privileges", "lsm", "differs")
    assert [getattr(created, each) for each in same] == [getattr(started, each) for each in same]
    assert created.bounding_capabilities == created.capabilities == ("CAP_CHOWN", "CAP_KILL")


def test_the_hosts_network_by_a_path(
    create: Callable[..., Event], bundle: Path, tmp_path: Path, holder: str
) -> None:
    (tmp_path / "link").symlink_to(f"/proc/{holder}/ns/net")
    document = sleeping(bundle)
    kinds = [kind for kind in document["linux"]["namespaces"] if kind["type"] != "network"]
    path = str(tmp_path / "link")
    document["linux"]["namespaces"] = [*kinds, {"type": "network", "path": path}]
    save(bundle, document)
    actual = of(create())
    assert "net" in actual.host_namespaces
    assert "namespaces" not in actual.differs


def test_what_a_hook_mounts_differs(create: Callable[..., Event], runtime: Runtime, bundle: Path) -> None:
    """config.json asks for none of it: a createContainer hook mounts it in the container's namespace."""
    script = bundle / "hook"
    script.write_text(f"#!/bin/sh\nexec mount --bind /etc {bundle}/rootfs/tmp\n")
    script.chmod(0o755)
    document = sleeping(bundle)
    document["hooks"] = {"createContainer": [{"path": str(script)}]}
    save(bundle, document)
    actual = of(create())
    assert names_of(actual) == [("/tmp", "/etc")]
    assert actual.differs == ("mounts",)


def names_of(actual: Actual) -> list[tuple[str, str | None]]:
    """Where our `/` is a part of a disk, the host's pid 1 may see that part by another name: not that one."""
    root = find_mount("/proc/self/mountinfo", point="/")
    part = root.root if root and root.root != "/" else None
    mounts = [(mount.destination, mount.host_path) for mount in actual.host_mounts]
    return [each for each in mounts if not part or not (each[1] or "").startswith(part)]


def rules(text: str) -> Policy:
    return Policy(compile_rules(tomlfile.parse(text, "rules.toml")))


def ask(watched: Watched, text: str) -> None:
    watched.watcher.replace((), rules(text).registrations())


@pytest.mark.parametrize("way", ["create", "start", "run"])
@pytest.mark.parametrize("denied", [True, False], ids=["denied", "allowed"])
def test_a_rule_on_it(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching, way: str, denied: bool
) -> None:
    """It needs no switch. What it refuses never runs."""
    there = tmp_path / "there"
    there.mkdir()
    (tmp_path / "link").symlink_to("/proc/self/root/etc" if denied else there)
    document = edit(bundle)
    document["process"]["args"] = ["/bin/mkdir", "/out/ran"]
    out = {"destination": "/out", "type": "bind", "source": str(there), "options": ["rbind"]}
    document["mounts"] += [bind(str(tmp_path / "link")), out]
    save(bundle, document)
    pid_file = tmp_path / "pid"
    with watching() as watched:
        ask(watched, DENY_ETC)
        if way == "run":
            runtime("run", "-b", str(bundle), name, check=False)
        else:
            runtime("create", "-b", str(bundle), "--pid-file", str(pid_file), name, detached=True)
            if way == "create":
                assert bool(read_as_an_engine(pid_file)) is not denied
            runtime("start", name, check=False)
        watched.wait_for("stopped", name)
    runtime("delete", "-f", name, check=False)
    assert (there / "ran").exists() is not denied
    event = "denied" if denied else "created"
    of(watched.wait_for(event, name))
    assert types(watched.of(name)).count("denied") == denied
    if denied:
        reason = watched.wait_for("denied", name).reason
        assert reason
        assert reason.rule == "no-etc"


def test_of_a_container_that_was_there_before(
    runtime: Runtime, bundle: Path, name: str, tmp_path: Path, watching: Watching
) -> None:
    """`existing` has it; and a rule that comes later reads it at the next exec."""
    mounted(bundle, bind("/proc/self/root/etc"))
    runtime("run", "-d", "-b", str(bundle), name, detached=True)
    try:
        with watching(existing=True, actual=True) as watched:
            assert names_of(of(watched.wait_for("existing", name))) == [("/tmp", "/etc")]
        with watching(existing=True) as watched:
            assert json.loads(watched.wait_for("existing", name).to_json())["container"]["actual"] is None
            ask(watched, DENY_ETC.replace("action =", 'on = ["exec"]\naction ='))
            assert runtime("exec", name, "/bin/true", check=False).returncode != 0
            of(watched.wait_for("denied", name))
    finally:
        runtime("delete", "-f", name, check=False)


def test_nobody_asks(create: Callable[..., Event], bundle: Path) -> None:
    save(bundle, sleeping(bundle))
    container = create(actual=False).container
    assert container
    assert container.actual is None
