"""Where nobody is asked a held task goes on first, and is told of then: in order, and once."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace as replace_fields

from startgate import engines
from startgate.errors import NotReadable
from startgate.events import Container, Event, Exit
from startgate.gates import untold
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.gates.restored import Restored
from startgate.hold import Hold
from startgate.inherited.notes import Notes
from startgate.kernel.fanotify import FAN_ALLOW
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, State
from startgate.listeners import Subscription
from startgate.records import ExecRecord
from startgate.runtimes.commandline import parse
from tests.kernel.support import eventually
from tests.unit.fakes import FakeGroup, FakeHost, expire, held, make_context, only_root, running

SHIM, TID, INIT = 41, 42, ProcessId(200, 1001)
CONFIG = {"ociVersion": "1.0.2", "process": {"cwd": "/", "args": ["/bin/sh"]}, "root": {"path": "rootfs"}}


class Scene:
    """A host on which a runtime is held in its `create`; `group.journal` has what was done, in order."""

    def __init__(self, host: FakeHost, group: FakeGroup, root: Path) -> None:
        self.host, self.group = host, group
        self.bundle = root / "bundle"
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps(CONFIG))
        spaces = dict.fromkeys(("net", "pid", "ipc", "uts", "user", "cgroup"), 7)
        host.process(1, ppid=0, namespaces=spaces, start_time=1)
        host.process(SHIM, comm="shim", start_time=90, root=root, namespaces=spaces)
        host.process(TID, root=root, cwd=self.bundle, ppid=SHIM, namespaces=spaces)
        self.init = host.process(INIT.pid, start_time=INIT.start_time)
        (self.init / "cgroup").write_text("0::/\n")
        host.proc._hierarchies = {}
        self.context = make_context(group, host.proc)
        self.take_notes(root / "notes")
        self.events: list[Event] = []
        self.context.listeners.attach(cast(Subscription, self))
        self.created = Created(self.context, lambda proc, entry, tid: None)
        self.creating = Creating(self.context, self.created)
        line = "runc create --bundle /bundle --pid-file /bundle/pid c1"
        self.call = parse([word.encode() for word in line.split()])
        arguments = [word.encode() for word in line.split()]
        self.record = ExecRecord(
            TID,
            TID,
            SHIM,
            trusted=True,
            arguments=arguments,
            complete=True,
            start_time=100,
            parent_comm="shim",
        )

    def take_notes(self, directory: Path) -> None:
        directory.mkdir()
        self.context = replace(self.context, notes=Notes(str(directory)))

    def put(self, event: Event, *, wake: bool = True) -> None:
        self.events.append(event)
        self.group.journal.append(("told", event.type))

    def wake(self) -> None:
        pass

    def create(self) -> None:
        """Pass the command gate."""
        self.creating.at_command(self.call, "/usr/sbin/runc", self.record, self.group.hold())

    @property
    def entry(self) -> Entry:
        (entry,) = self.context.lifecycle.containers()
        return entry

    def read_pid_file(self, entry: Entry) -> None:
        """Pass the pid-file gate."""
        (self.bundle / "pid").write_text(str(INIT.pid))
        hold = Hold(self.group, held(fd=os.open(self.bundle / "pid", os.O_RDONLY)))
        self.created.at_pid_file(entry, hold)

    def done(self) -> list[tuple[str, object]]:
        """Return what was answered and told, and forget it."""
        found = [each for each in self.group.journal if each[0] != "unmark"]
        self.group.journal.clear()
        return found


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(host, group, tmp_path)
    for _ in running(scene.context):
        yield scene


def test_a_command_goes_on_before_it_is_told(scene: Scene) -> None:
    scene.create()
    entry = scene.entry
    assert scene.done() == [("answer", FAN_ALLOW), ("told", "creating")]
    (event,) = scene.events
    assert event.held_us is not None
    assert event.container is entry.container
    assert event.container.args == ("/bin/sh",)
    assert [(each.pid, each.comm) for each in event.container.started_by_chain] == [
        (SHIM, "shim"),
        (1, "init"),
    ]
    assert entry.told
    assert scene.context.pid_files.place(entry)


def test_who_is_asked_is_waited_for(scene: Scene) -> None:
    scene.context.listeners.on("creating", lambda event: scene.group.journal.append(("asked", event.type)))
    scene.create()
    assert scene.done() == [("asked", "creating"), ("told", "creating"), ("answer", FAN_ALLOW)]


@pytest.mark.parametrize("size", [0, 1_100_000], ids=["none", "a large one"])
def test_a_config_is_read_before_the_command_goes_on(
    scene: Scene, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there after that may be another."""
    path = scene.bundle / "config.json"
    path.write_text(json.dumps(CONFIG | {"annotations": {"a": "x" * size}}))
    if not size:
        path.unlink()
    let_go = Hold.allow

    def allow(hold: Hold) -> bool:
        path.unlink(missing_ok=True)
        return let_go(hold)

    monkeypatch.setattr(Hold, "allow", allow)
    scene.create()
    assert scene.entry.container.args == (("/bin/sh",) if size else ())


def test_a_deadline_that_passes_while_gates_are_armed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told right then: a mark may hang for long."""
    hold = scene.group.hold()

    def add(entry: Entry, directory: int, *given: object, **more: object) -> None:
        os.close(directory)
        expire(hold)

    monkeypatch.setattr(scene.context.pid_files, "add", add)
    scene.creating.at_command(scene.call, "/usr/sbin/runc", scene.record, hold)
    assert scene.done() == [("answer", FAN_ALLOW), ("told", "creating")]
    assert (reason := scene.events[0].reason)
    assert reason.message == "the deadline of 0.0 s passed before this was done: allowed"
    assert scene.entry.container.args == ("/bin/sh",)  # for the next event


@only_root
def test_an_init_that_ended_before_it_could_be_watched(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: object) -> None:
        raise NotReadable("gone")

    scene.create()
    entry = scene.entry
    monkeypatch.setattr(scene.context.exits, "watch", gone)
    scene.read_pid_file(entry)
    assert eventually(lambda: len(scene.events) == 3)
    assert [event.type for event in scene.events] == ["creating", "created", "stopped"]
    assert scene.events[-1].exit == Exit(code=None, signal=None)


def test_a_command_that_is_killed_once_it_goes_on_is_told_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> object:
        raise ProcessLookupError("gone")

    monkeypatch.setattr(engines, "identify", killed)
    scene.create()
    assert scene.done() == [("answer", FAN_ALLOW), ("told", "creating")]


def test_one_whose_deadline_was_faster_is_told_as_late(scene: Scene) -> None:
    """It waited in a queue, say."""
    hold = scene.group.hold()
    expire(hold)
    scene.creating.at_command(scene.call, "/usr/sbin/runc", scene.record, hold)
    assert scene.done() == [("answer", FAN_ALLOW), ("told", "creating")]
    assert scene.events[0].reason
    assert scene.events[0].container is scene.entry.container


@only_root
def test_an_error_of_ours_leaves_nobody_waiting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: object, **more: object) -> Container:
        raise ValueError("wrong")

    scene.create()
    entry = scene.entry
    monkeypatch.setattr(scene.created, "_complete", wrong)
    with pytest.raises(ValueError, match="wrong"):
        scene.read_pid_file(entry)
    assert entry.passed
    assert [event.type for event in scene.events] == ["creating", "created"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["its parent sees the same", "nobody does"])
def test_a_runtime_that_ends_while_it_is_looked_at(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, elsewhere: bool
) -> None:
    """What it saw is looked for through its parent then: never told as if there were nothing."""
    runtime = scene.host.root / "proc" / str(TID)

    def identify(container: Container, *given: object) -> Container:
        if runtime.exists():
            shutil.rmtree(runtime)
            return container
        return replace_fields(container, name="web")

    if elsewhere:
        for link in (f"{SHIM}/root", "1/root"):
            (scene.host.root / "proc" / link).unlink()
            (scene.host.root / "proc" / link).symlink_to("/")
    monkeypatch.setattr(engines, "identify", identify)
    scene.create()
    container = scene.entry.container
    assert (container.name, "name" in container.unknown) == ((None, True) if elsewhere else ("web", False))
    assert container.args == ("/bin/sh",)
    assert ("told as far as it is known" in caplog.text) == elsewhere


def test_many_at_once_are_told_before_they_go_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's lock is what they wait for then."""
    monkeypatch.setattr(untold, "_AT_ONCE", 0)
    scene.create()
    assert scene.done() == [("told", "creating"), ("answer", FAN_ALLOW)]


@only_root
def test_a_reader_goes_on_before_created_is_told(scene: Scene) -> None:
    scene.create()
    entry = scene.entry
    scene.done()
    scene.read_pid_file(entry)
    assert scene.done() == [("answer", FAN_ALLOW), ("told", "created")]
    assert scene.events[-1].container is entry.container
    assert entry.container.namespaces.mnt
    assert entry.passed
    assert entry.init_watch


@only_root
def test_a_reader_waits_for_who_is_asked_of_created(scene: Scene) -> None:
    scene.create()
    entry = scene.entry
    scene.done()
    scene.context.listeners.on("created", lambda event: None)
    scene.read_pid_file(entry)
    assert scene.done() == [("told", "created"), ("answer", FAN_ALLOW)]


@only_root
def test_an_init_that_is_gone_by_then_is_told_with_what_is_known(scene: Scene) -> None:
    scene.create()
    entry = scene.entry
    (scene.init / "cgroup").unlink()
    scene.read_pid_file(entry)
    assert [event.type for event in scene.events] == ["creating", "created"]
    assert (entry.container.pid, entry.container.cgroup, entry.passed) == (INIT.pid, None, True)


class Slow:
    """A look at the engine's files, which takes as long as a test likes."""

    def __init__(self) -> None:
        self.began, self.ends = threading.Event(), threading.Event()

    def __call__(self, container: object, *given: object) -> object:
        self.began.set()
        assert self.ends.wait(10)
        return container


@pytest.fixture
def slow(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """A create that goes on, and is not told of yet."""
    slow = Slow()
    monkeypatch.setattr(engines, "identify", slow)
    thread = threading.Thread(target=scene.create)
    thread.start()
    assert slow.began.wait(10)
    yield slow
    slow.ends.set()
    thread.join()


@only_root
def test_a_later_gate_waits_until_the_start_is_told(scene: Scene, slow: Slow) -> None:
    reader = threading.Thread(target=lambda: scene.read_pid_file(scene.entry))
    reader.start()
    reader.join(0.05)
    assert scene.done() == [("answer", FAN_ALLOW)]
    slow.ends.set()
    reader.join()
    assert [what for what in scene.done() if what[0] == "told"] == [("told", "creating"), ("told", "created")]
    assert scene.entry.container.args == ("/bin/sh",)


@only_root
def test_a_start_whose_files_hang_is_told_as_it_is_known(
    scene: Scene, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untold, "_PATIENCE", 0.01)
    scene.read_pid_file(scene.entry)
    slow.ends.set()
    assert eventually(lambda: not scene.created.untold._open)
    assert [event.type for event in scene.events] == ["creating", "created"]
    assert (reason := scene.events[0].reason)
    assert reason.message == "its files could not be read in 0 s"


def test_an_end_before_the_start_is_told_comes_after_it(scene: Scene, slow: Slow) -> None:
    ending = threading.Thread(target=lambda: scene.created.runtime_ended(scene.entry, 1 << 8))
    ending.start()
    slow.ends.set()
    ending.join()
    assert eventually(lambda: len(scene.events) == 2)
    assert [event.type for event in scene.events] == ["creating", "stopped"]


def test_a_worker_tells_what_the_one_before_had_not_told(scene: Scene, group: FakeGroup, slow: Slow) -> None:
    """It was killed between the answer and the words."""
    context = make_context(group, scene.host.proc)
    next_one = replace(context, notes=scene.context.notes)
    events = next_one.listeners.subscribe(10)
    for _ in running(next_one):
        Restored(next_one, Created(next_one)).restore(())
        slow.ends.set()
        event = events.get(timeout=10)
    assert event and event.container and event.reason
    assert (event.type, event.container.args) == ("creating", ("/bin/sh",))
    assert event.reason.message == "the worker that let it go ended right then: it may have told of it, too"


def test_what_was_told_is_not_told_by_the_next_worker(scene: Scene, group: FakeGroup) -> None:
    scene.create()
    assert scene.entry.state is State.CREATING
    next_one = replace(make_context(group, scene.host.proc), notes=scene.context.notes)
    events = next_one.listeners.subscribe(10)
    for _ in running(next_one):
        Restored(next_one, Created(next_one)).restore(())
        assert events.get(timeout=0.05) is None
        assert [entry.told for entry in next_one.lifecycle.containers()] == [True]
