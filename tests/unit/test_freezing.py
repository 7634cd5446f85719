from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from startgate.errors import NotReadable, Overloaded
from startgate.exits import Ended, Watch
from startgate.gates import freezing
from startgate.gates.context import Context
from startgate.gates.freezing import Freezing
from startgate.hold import Hold
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry, Key
from startgate.listeners import Subscription
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command
from tests.unit.fakes import FakeExits, FakeGroup, FakeHost, make_context, make_entry

PAUSE, RESUME = Command.PAUSE, Command.RESUME


def record(pid: int, ppid: int = 1) -> ExecRecord:
    return ExecRecord(pid, pid, ppid, trusted=True, arguments=[], complete=True, start_time=100)


class Scene:
    """A container that runs, and runtime processes that end when they are told to."""

    def __init__(self, context: Context, group: FakeGroup) -> None:
        self.context = context
        self.events: Subscription = context.listeners.subscribe(10)
        self.entry = self.add("c1")
        self.freezing = Freezing(context)
        self.ends: dict[int, Ended] = {}
        self.holds: list[Hold] = []
        self._group = group
        cast(FakeExits, context.exits).watch = self._watch  # type: ignore[method-assign]

    def add(self, identity: str) -> Entry:
        entry = make_entry(identity, pid=4242, runtime=ProcessId(100 + len(identity), 1))
        self.context.lifecycle.begin(entry)
        self.context.lifecycle.claim(entry, entry.container)
        self.context.lifecycle.passed(entry)
        return entry

    def _watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        if process.pid in self.ends:
            raise NotReadable("it is gone")
        self.ends[process.pid] = ended
        return Watch(process, -1, ended)

    def command(self, command: Command, pid: int, ppid: int = 1, key: Key | None = None) -> None:
        """Hold a command, and let it go."""
        hold = self._group.hold()
        self.holds.append(hold)
        job = self.freezing.decide(command, key or self.entry.key, record(pid, ppid), hold)
        assert job is not None
        try:
            job()
        finally:
            assert hold.answered and not hold.denied

    def told(self) -> list[str]:
        found = []
        while (event := self.events.get(timeout=0)) is not None:
            assert event.gate == "none" and event.held_us is None
            found.append(f"{event.type} {event.container.id}" if event.container else event.type)
        return found


@pytest.fixture
def scene(host: FakeHost, group: FakeGroup) -> Iterator[Scene]:
    context = make_context(group, host.proc)
    yield Scene(context, group)
    context.pid_files.close()


def test_it_is_told_once_the_runtime_has_done_it(scene: Scene) -> None:
    scene.command(PAUSE, 7)
    assert scene.told() == []
    scene.ends[7](0)
    assert scene.told() == ["paused c1"]
    scene.command(RESUME, 8)
    scene.ends[8](0)
    assert scene.told() == ["resumed c1"]


def test_a_command_that_failed_changed_nothing(scene: Scene) -> None:
    scene.command(PAUSE, 7)
    scene.ends[7](1 << 8)
    scene.command(RESUME, 8)
    scene.ends[8](9)
    assert scene.told() == []


def test_an_end_that_nobody_knows_leaves_a_doubt_which_is_told(scene: Scene) -> None:
    scene.command(PAUSE, 7)
    scene.ends[7](None)
    event = scene.events.get(timeout=0)
    assert event and event.type == "lost" and event.reason
    assert event.reason.message == "was c1 paused? The runtime ended, and nobody could tell how"


def test_nothing_comes_after_stopped(scene: Scene) -> None:
    scene.command(PAUSE, 7)
    scene.context.lifecycle.stopped(scene.entry, End(0))
    scene.ends[7](0)
    assert scene.told() == []


def test_a_container_that_nobody_knows_holds_no_command(scene: Scene, group: FakeGroup) -> None:
    with group.hold() as hold:
        assert scene.freezing.decide(PAUSE, Key("/run/runc", "c2"), record(7), hold) is None


def test_a_command_that_executes_itself_again_is_told_once(scene: Scene) -> None:
    scene.command(PAUSE, 7)
    scene.command(PAUSE, 7)  # raises NotReadable if it is followed again
    scene.ends[7](0)
    assert scene.told() == ["paused c1"]


def test_what_a_wrapper_executes_is_told_at_the_wrappers_end(scene: Scene, host: FakeHost) -> None:
    host.process(7, start_time=100)
    scene.command(PAUSE, 7)
    scene.command(PAUSE, 8, ppid=7)
    assert list(scene.ends) == [7]
    scene.ends[7](0)
    assert scene.told() == ["paused c1"]


def test_a_hook_of_a_command_pauses_another_container(scene: Scene, host: FakeHost) -> None:
    other = scene.add("another")
    host.process(7, start_time=100)
    scene.command(PAUSE, 7)
    scene.command(PAUSE, 8, ppid=7, key=other.key)
    scene.ends[8](0)
    scene.ends[7](0)
    assert scene.told() == ["paused another", "paused c1"]


def test_a_command_that_is_gone_is_not_followed(scene: Scene) -> None:
    scene.ends[7] = lambda status: None
    with pytest.raises(NotReadable):
        scene.command(PAUSE, 7)
    del scene.ends[7]
    scene.command(PAUSE, 7)
    scene.ends[7](0)
    assert scene.told() == ["paused c1"]


def test_commands_that_never_end_cost_no_more_than_so_much(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezing, "_OF_ONE_USER", 2)
    scene.command(PAUSE, 7)
    scene.command(PAUSE, 8)
    with pytest.raises(Overloaded):
        scene.command(PAUSE, 9)
    scene.ends[7](0)
    scene.command(PAUSE, 9)
