"""Runtimes that nobody knew of when they were used: the first container is told late, the next is held."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from startgate import Deny, Event
from startgate.testing import make_bundle
from tests.kernel.conftest import Watching
from tests.kernel.support import (
    PATIENCE,
    Runtime,
    Watched,
    eventually,
    read_as_an_engine,
    types,
    unavailable,
)
from tests.kernel.test_slow_files import fuse

pytestmark = pytest.mark.portable


@pytest.fixture(autouse=True)
def _sightings(sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTGATE_SIGHTINGS", str(tmp_path))
    if reason := sources["table"]:
        unavailable(reason)


@pytest.fixture
def unknown(runtime: Runtime, tmp_path: Path) -> Runtime:
    """A copy of a runtime in a directory where nobody looks."""
    return copy_of(runtime, tmp_path / "opt/distribution/bin" / runtime.name)


def copy_of(runtime: Runtime, path: Path) -> Runtime:
    path.parent.mkdir(parents=True)
    shutil.copy(runtime.prefix[-1], path)
    return Runtime(runtime.name, (*runtime.prefix[:-1], str(path)))


def reason_of(event: Event) -> str:
    return event.reason.message if event.reason else ""


def shows_late(events: Sequence[Event], runtime: str = "runc") -> None:
    """Its command was not held, and that is told; nothing is told twice."""
    assert types(events)[:2] == ["creating", "created"], events
    assert types(events).count("creating") == types(events).count("created") == 1
    if runtime == "crun" and events[0].gate == "command":
        return  # crun executes itself a second time, and that was held
    assert (events[0].gate, events[0].held_us) == ("none", None)
    assert "was not watched" in reason_of(events[0])


def shows_held(events: Sequence[Event]) -> None:
    assert types(events) == ["creating", "created", "started", "stopped"]
    assert [event.gate for event in events[:3]] == ["command", "first-exec", "first-exec"], events


def run_twice(watched: Watched, runtime: Runtime, bundle: Path, name: str) -> None:
    """The first is told late, the second is held."""
    for number in range(2):
        runtime("run", "-b", str(bundle), f"{name}-{number}", check=False)
        watched.wait_for("stopped", f"{name}-{number}")
    shows_late(watched.of(f"{name}-0"), runtime.name)
    shows_held(watched.of(f"{name}-1"))
    assert runtime.prefix[-1] in watched.watcher.binaries


def test_a_runtime_at_a_path_that_nobody_knew(
    unknown: Runtime, tmp_path: Path, name: str, watching: Watching
) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 0.5; exit 7"])
    with watching() as watched:
        run_twice(watched, unknown, bundle, name)
        first = watched.of(f"{name}-0")[0].container
        assert first and first.args[:2] == ("/bin/sh", "-c")
        assert first.runtime_path == unknown.prefix[-1]
        assert first.started_by


def test_with_a_name_that_is_no_runtimes(
    runtime: Runtime, tmp_path: Path, name: str, watching: Watching
) -> None:
    """Its command line tells, and the bundle that it names."""
    strange = copy_of(runtime, tmp_path / f"nix/store/abc-{runtime.name}-1.2/bin/oci-wrapped")
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 0.5"])
    with watching() as watched:
        run_twice(watched, strange, bundle, name)


def test_in_the_bundle_without_naming_it(
    runc: Runtime, tmp_path: Path, name: str, watching: Watching
) -> None:
    """The container that it makes tells."""
    strange = copy_of(runc, tmp_path / "opt/some-program")
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 1"])
    with watching() as watched:
        for number in range(2):
            strange("run", f"{name}-{number}", cwd=bundle)
            watched.wait_for("stopped", f"{name}-{number}")
        shows_late(watched.of(f"{name}-0"))
        shows_held(watched.of(f"{name}-1"))


def test_as_engines_start_one(
    unknown: Runtime, bundle: Path, tmp_path: Path, name: str, watching: Watching
) -> None:
    """Its pid file is watched in time: held before its program runs, the first one, too."""
    with watching() as watched:
        for number in range(2):
            container, pid_file = f"{name}-{number}", tmp_path / f"pids-{number}/pid"
            pid_file.parent.mkdir()
            unknown("create", "-b", str(bundle), "--pid-file", str(pid_file), container, detached=True)
            pid = int(read_as_an_engine(pid_file))
            unknown("start", container)
            watched.wait_for("stopped", container)
            created = watched.of(container)[1]
            assert (created.type, created.gate) == ("created", "pidfile")
            assert created.container and created.container.pid == pid
            unknown("delete", container, check=False)
        shows_late(watched.of(f"{name}-0"), unknown.name)
        assert watched.of(f"{name}-1")[0].gate == "command"


def test_a_refusal_is_carried_out_at_the_first_exec(
    unknown: Runtime, tmp_path: Path, name: str, watching: Watching
) -> None:
    mark = tmp_path / "bundle/rootfs/mark"
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "echo ran >/mark"])
    refuse = {"creating": lambda event: Deny("no") if event.container.id == name else None}
    with watching(refuse) as watched:
        pid_file = tmp_path / "pids/pid"
        pid_file.parent.mkdir()
        command = ["create", "-b", str(bundle), "--pid-file", str(pid_file), name]
        made = unknown(*command, detached=True, check=False)
        if made.returncode == 0:
            read_as_an_engine(pid_file)
            unknown("start", name, check=False)
            watched.wait_for("stopped", name)
            unknown("delete", "--force", name, check=False)
        else:  # crun executes itself a second time, and that was held
            assert unknown.name == "crun"
        denied = watched.wait_for("denied", name)
    assert "no" in reason_of(denied)
    assert not mark.exists()


def test_by_its_name_before_it_makes_a_container(
    unknown: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """Engines ask for its version first."""
    with watching() as watched:
        unknown("--version")
        assert eventually(lambda: unknown.prefix[-1] in watched.watcher.binaries)
        unknown("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
        shows_held(watched.of(name))


def test_in_another_mount_namespace(
    runc: Runtime, bundle: Path, tmp_path: Path, name: str, watching: Watching
) -> None:
    """A file that is mounted over a runtime there only: a snap, a node in a container."""
    known, hidden = tmp_path / "bin/runc", tmp_path / "hidden"
    copy_of(runc, known)
    shutil.copy(runc.prefix[-1], hidden)
    script = 'mount --bind "$1" "$0"; "$0" run -b "$2" "$3"; exec "$0" run -b "$2" "$4"'
    words = ["unshare", "-m", "sh", "-c", script, known, hidden, bundle, f"{name}-0", f"{name}-1"]
    with watching(runtimes=[str(known)]) as watched:
        subprocess.run(
            [str(word) for word in words], check=False, timeout=PATIENCE * 3, stdin=subprocess.DEVNULL
        )
        watched.wait_for("stopped", f"{name}-1")
        shows_late(watched.of(f"{name}-0"))
        shows_held(watched.of(f"{name}-1"))


@pytest.mark.parametrize(
    "words", [["run", "thing"], ["run", "--bundle", "/none", "thing"], ["create", "thing"]]
)
def test_other_programs_are_left_alone(
    words: list[str], bundle: Path, tmp_path: Path, runc: Runtime, name: str, watching: Watching
) -> None:
    """Though they have a `run`, and are executed in a bundle: they make no container."""
    other = tmp_path / "npm"
    shutil.copy("/bin/sleep", other)
    with watching() as watched:
        subprocess.run([other, *words], cwd=bundle, check=False, capture_output=True)
        runc("run", "-b", str(bundle), name, check=False)
        watched.wait_for("stopped", name)
        assert str(other) not in watched.watcher.binaries
        assert not watched.of("thing")


def test_a_file_mounted_over_it(
    runc: Runtime, bundle: Path, tmp_path: Path, name: str, watching: Watching
) -> None:
    """As a system extension is merged: it is marked before it is used."""
    known, newer = tmp_path / "bin/runc", tmp_path / "newer"
    copy_of(runc, known)
    shutil.copy(runc.prefix[-1], newer)
    with watching(runtimes=[str(known)]) as watched:
        marked = watched.marked
        subprocess.run(["mount", "--bind", newer, known], check=True)
        try:
            assert eventually(lambda: watched.marked != marked)
            subprocess.run([known, "run", "-b", bundle, name], check=False)
            watched.wait_for("stopped", name)
        finally:
            subprocess.run(["umount", "-l", known], check=True)
        shows_held(watched.of(name))


def test_alternatives_that_are_switched(
    runc: Runtime, bundle: Path, tmp_path: Path, name: str, watching: Watching
) -> None:
    """A link to a link, whose own directory nobody executes from."""
    for version in ("one", "two"):
        copy_of(runc, tmp_path / "versions" / version / "oci-runtime")
    (tmp_path / "alternatives").mkdir()
    (tmp_path / "bin").mkdir()
    link, binary = tmp_path / "alternatives/runc", tmp_path / "bin/my-runtime"
    link.symlink_to("../versions/one/oci-runtime")
    binary.symlink_to(link)
    with watching(runtimes=[str(binary)]) as watched:
        (tmp_path / "alternatives/new").symlink_to("../versions/two/oci-runtime")
        os.rename(tmp_path / "alternatives/new", link)
        assert eventually(lambda: str(tmp_path / "versions/two/oci-runtime") in watched.watcher.binaries)
        subprocess.run([binary, "run", "-b", bundle, name], check=False)
        watched.wait_for("stopped", name)
        shows_held(watched.of(name))


def test_many_at_once(runc: Runtime, tmp_path: Path, name: str, watching: Watching) -> None:
    """While it is being marked others are under way: each is told once."""
    unknown = copy_of(runc, tmp_path / "opt/bin/runc")
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 0.2"])
    with watching() as watched:
        processes = [unknown.popen("run", "-b", str(bundle), f"{name}-{number}") for number in range(12)]
        for process in processes:
            process.wait()
        for number in range(12):
            watched.wait_for("stopped", f"{name}-{number}")
            told = [kind for kind in types(watched.of(f"{name}-{number}")) if kind != "started"]
            assert told == ["creating", "created", "stopped"]


def test_one_on_a_file_system_that_may_not_answer(
    runc: Runtime, tmp_path: Path, name: str, watching: Watching
) -> None:
    """It can't be marked: each of its starts is told late, and held at the gates that are ahead."""
    copy_of(runc, tmp_path / "source/runc")
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "sleep 0.5"])
    with fuse(tmp_path / "source", tmp_path / "mounted"), watching() as watched:
        there = Runtime("runc", (str(tmp_path / "mounted/runc"),))
        for number in range(2):
            there("run", "-b", str(bundle), f"{name}-{number}")
            watched.wait_for("stopped", f"{name}-{number}")
            shows_late(watched.of(f"{name}-{number}"))
        assert there.prefix[-1] not in watched.watcher.binaries
