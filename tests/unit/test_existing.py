"""What was there before us is told once, and followed; so is a start that falls in between."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from startgate.errors import NotReadable
from startgate.events import Event
from startgate.exits import Watch
from startgate.gates.ends import Ends
from startgate.gates.existing import Existing
from startgate.inherited.notes import Notes
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, State
from startgate.runtimes.state import CRUN, RUNC
from tests.unit.fakes import FakeExits, FakeGroup, Jobs, make_context, make_entry, only_root
from tests.unit.test_running import Host

pytestmark = only_root

INIT = ProcessId(10, 100)


class Scene:
    """A host that startgate comes to."""

    def __init__(self, root: Path, group: FakeGroup) -> None:
        self.host = Host(root)
        self.jobs = Jobs()
        (self.host.root / "notes").mkdir()
        notes = Notes(str(self.host.root / "notes"))
        self.context = dataclasses.replace(make_context(group, self.host.proc, self.jobs), notes=notes)
        self.exits = cast(FakeExits, self.context.exits)
        self.events = self.context.listeners.subscribe(100)
        self.runtimes: list[str] = []
        self.ends = Ends(self.context)
        self.existing = Existing(self.context, self.ends, self.runtimes.append)
        self.host.bundle("/b")

    def container(self, identity: str = "c1", pid: int = 10, *, created: bool = False) -> None:
        self.host.run(pid, "sleep", ppid=1)
        directory = self.host.runc(identity, pid, "/b")
        if created:
            os.mkfifo(directory / "exec.fifo")

    def look(self) -> list[Event]:
        self.existing.start()
        return self.told()

    def told(self) -> list[Event]:
        self.jobs.run()
        found = []
        while event := self.events.get(timeout=0):
            found.append(event)
        return found

    def types(self) -> list[str]:
        return [event.type for event in self.look()]

    def entries(self) -> list[Entry]:
        return self.context.lifecycle.containers()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody really waits."""
    pauses: list[float] = []

    def wait(event: threading.Event, timeout: float) -> None:
        if not event.is_set():
            pauses.append(timeout)

    monkeypatch.setattr(threading.Event, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    return pauses


@pytest.fixture
def scene(tmp_path: Path, group: FakeGroup, pauses: list[float]) -> Iterator[Scene]:
    scene = Scene(tmp_path / "host", group)
    yield scene
    scene.existing.close()


# What runs


def test_a_container_that_runs_is_told_and_followed(scene: Scene) -> None:
    scene.container()
    (event,) = scene.look()
    assert (event.type, event.gate) == ("existing", "none")
    assert event.container and (event.container.id, event.container.pid, event.container.hostname) == (
        "c1",
        10,
        "web",
    )
    assert scene.exits.followed() == [INIT]
    (entry,) = scene.entries()
    assert (entry.state, entry.passed, entry.config, entry.flavour) == (State.RUNNING, True, None, RUNC)
    assert [note.init for note in scene.context.notes] == [INIT]
    scene.exits.watched[0].ended(3 << 8)
    (stopped,) = scene.told()
    assert stopped.type == "stopped"
    assert stopped.exit and stopped.exit.code == 3
    assert scene.entries() == []


def test_a_created_container_comes_to_its_start(scene: Scene) -> None:
    """That is a gate: nobody looks for it."""
    scene.container(created=True)
    assert scene.types() == ["existing"]
    (entry,) = scene.entries()
    assert (entry.state, entry.passed, entry.gated) == (State.CREATING, False, True)
    assert entry.config  # what its first exec will be
    assert scene.context.lifecycle.to_start(entry.key) is entry


def test_cruns_are_told_as_cruns(scene: Scene) -> None:
    scene.host.run(10, "sleep")
    scene.host.crun("c1", "/b", pid=10, **{"process-start-time": 100})
    scene.look()
    assert [entry.flavour for entry in scene.entries()] == [CRUN]


def test_each_is_told_once(scene: Scene) -> None:
    """A link to a state directory is another name for all that is in it."""
    scene.container()
    shutil.copytree(scene.host.root / "run/runc", scene.host.root / "run/crun/../../other")
    scene.host.run(20, "runc", "--root", "/other", "run", "c1")
    assert scene.types() == ["existing"]
    assert scene.types() == []
    assert scene.exits.followed() == [INIT]


def test_a_container_that_a_worker_before_us_knew_is_not_told_again(scene: Scene) -> None:
    known = make_entry("another name", pid=10)
    known.init_watch = Watch(INIT, -1, print)
    scene.context.lifecycle.begin(known)
    scene.context.lifecycle.begin(make_entry("without an init", runtime=ProcessId(300, 1)))
    scene.container()
    assert scene.types() == []


def test_a_container_that_a_gate_saw_is_not_told(scene: Scene) -> None:
    """Its runtime is older than its init."""
    scene.context.lifecycle.begin(make_entry("c1", runtime=ProcessId(9, 99)))
    scene.container()
    assert scene.types() == []
    assert scene.exits.followed() == []


def test_a_container_that_ends_meanwhile_is_not_told(scene: Scene) -> None:
    scene.exits.fails = NotReadable("process 10 is gone")
    scene.container()
    assert scene.types() == []
    assert scene.entries() == []


def test_an_end_that_comes_first_is_told_after(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = scene.context.lifecycle.adopt

    def adopted(entry: Entry) -> bool:
        done = adopt(entry)
        scene.exits.watched[0].ended(9)
        assert scene.events.get(timeout=0) is None
        return done

    monkeypatch.setattr(scene.context.lifecycle, "adopt", adopted)
    scene.container()
    assert scene.types() == ["existing", "stopped"]


@pytest.mark.parametrize(("runtime", "told"), [("/usr/bin/other-runc", True), ("other-runc", False)])
def test_the_binaries_that_engines_use_are_told(scene: Scene, runtime: str, told: bool) -> None:
    """The next container will be made by the same one."""
    directory = scene.host.run(20, "/usr/bin/conmon", "-r", runtime, "-c", "c1")
    assert directory
    scene.host.run(10, "sleep", ppid=20)
    scene.host.runc("c1", 10, "/b")
    scene.look()
    assert scene.runtimes == ([runtime] if told else [])


def test_what_can_not_be_looked_at_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*about: object) -> object:
        raise OSError(5, "Input/output error")

    scene.container()
    monkeypatch.setattr(scene.context.lifecycle, "adopt", fail)
    (event,) = scene.look()
    assert event.type == "lost"
    assert event.reason and event.reason.message.startswith("containers that run already are not all known")


def test_who_is_closed_looks_no_further(
    scene: Scene, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = scene.exits.watch

    def closing(process: ProcessId, ended: Any, *, patient: bool = False) -> Watch:
        scene.existing.close()
        return watch(process, ended, patient=patient)

    monkeypatch.setattr(scene.exits, "watch", closing)
    scene.container()
    scene.container("c2", 11)
    assert scene.types() == ["existing"]
    assert pauses == [2.0]  # who closes waits for the look that is under way, but not for long


def test_who_closes_waits_for_no_look_that_is_over(scene: Scene, pauses: list[float]) -> None:
    scene.existing.close()
    scene.look()
    scene.existing.close()
    assert pauses == []


# What is just being started


def test_a_runtime_that_was_executed_before_us_is_waited_for(
    scene: Scene, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.host.run(20, "runc", "run", "--bundle", "/b", "c1")
    is_alive = scene.host.proc.is_alive

    def looked(process: ProcessId) -> bool:
        if len(pauses) == 2:
            scene.container()
        return is_alive(process)

    monkeypatch.setattr(scene.host.proc, "is_alive", looked)
    assert scene.types() == ["existing"]
    assert pauses == [0.01, 0.02, 0]  # once it is there nothing is waited for


def test_a_runtime_that_ends_makes_nothing_any_more(
    scene: Scene, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = scene.host.run(20, "runc", "run", "--bundle", "/b", "c1")
    is_alive = scene.host.proc.is_alive

    def looked(process: ProcessId) -> bool:
        if len(pauses) == 1:
            shutil.rmtree(directory)
        return is_alive(process)

    monkeypatch.setattr(scene.host.proc, "is_alive", looked)
    assert scene.types() == []
    assert pauses == [0.01, 0]


def test_no_runtime_is_waited_for_without_end(scene: Scene, pauses: list[float]) -> None:
    scene.host.run(20, "runc", "run", "--bundle", "/b", "c1")
    assert scene.types() == []
    assert 60 <= sum(pauses) < 62
    assert max(pauses) == 1.0


@pytest.mark.parametrize("line", ["runc state c1", "sleep 5"])
def test_who_starts_nothing_is_not_waited_for(scene: Scene, pauses: list[float], line: str) -> None:
    scene.host.run(20, *line.split())
    assert scene.types() == []
    assert sum(pauses) == 0


def test_a_runtime_that_was_held_is_not_waited_for(scene: Scene, pauses: list[float]) -> None:
    """A gate sees what becomes of it."""
    scene.host.run(20, "runc", "run", "--bundle", "/b", "c1")
    scene.context.lifecycle.begin(make_entry("c1", runtime=ProcessId(20, 100)))
    assert scene.types() == []
    assert sum(pauses) == 0


def test_who_is_closed_waits_no_longer(
    scene: Scene, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.host.run(20, "runc", "run", "--bundle", "/b", "c1")
    monkeypatch.setattr(scene.host.proc, "is_alive", lambda process: scene.existing.close() or True)  # type: ignore[func-returns-value]
    assert scene.types() == []
    assert sum(pauses) < 5
