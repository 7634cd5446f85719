"""What one worker notes, the next one knows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from startgate.exits import Exits, Watch
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.gates.restored import Restored
from startgate.inherited import notes
from startgate.inherited.notes import Notes
from startgate.kernel.pids import PidNamespace
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry, Key, Lifecycle, State
from startgate.listeners import Deny
from startgate.runtimes.log import RuntimeLog
from tests.kernel.support import eventually
from tests.unit.fakes import FakeExits, FakeGroup, FakeHost, make_context, make_entry, running


class Followed(FakeExits):
    """Some processes have ended before anyone could watch them."""

    def __init__(self, ended: dict[int, int]) -> None:
        super().__init__()
        self._ended = ended

    def watch(self, process: ProcessId, ended: Any, *, patient: bool = False) -> Watch:
        if process.pid in self._ended:
            raise OSError("gone")
        return super().watch(process, ended, patient=patient)

    def gone(self, process: ProcessId) -> int | None:
        return self._ended.get(process.pid)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def context_of(group: FakeGroup, directory: Path, ended: dict[int, int] | None = None) -> Context:
    context = make_context(group)
    changes = {"notes": Notes(str(directory)), "exits": cast(Exits, Followed(ended or {}))}
    return Context(**{field: getattr(context, field) for field in context.__dataclass_fields__} | changes)


def restored(context: Context, held: tuple[int, ...] = ()) -> list[Entry]:
    Restored(context, Created(context)).restore(held)
    return context.lifecycle.containers()


def an_entry(state: State) -> Entry:
    entry = make_entry("c1")
    entry.state = state
    entry.arguments = [b"runc", b"create", b"--bundle", b"/b\xff", b"c1"]
    return entry


def test_a_running_container_is_followed_again(group: FakeGroup, directory: Path) -> None:
    entry = an_entry(State.RUNNING)
    entry.init_watch = Watch(ProcessId(77, 7), -1, lambda status: None)
    entry.requested_signal = 15
    context_of(group, directory).note(entry)
    (again,) = restored(context_of(group, directory))
    assert (again.key, again.container, again.runtime) == (entry.key, entry.container, entry.runtime)
    assert (again.state, again.passed, again.told) == (State.RUNNING, True, True)
    assert again.requested_signal == 15
    assert again.arguments == entry.arguments
    assert again.init_watch and again.init_watch.process == ProcessId(77, 7)


def test_one_that_ended_meanwhile_is_told(group: FakeGroup, directory: Path) -> None:
    entry = an_entry(State.RUNNING)
    entry.init_watch = Watch(ProcessId(77, 7), -1, lambda status: None)
    context_of(group, directory).note(entry)
    for context in running(context_of(group, directory, {77: 3 << 8})):
        events = context.listeners.subscribe(10)
        assert restored(context) == []
        stopped = events.get(timeout=10)
        assert stopped and stopped.type == "stopped" and stopped.exit and stopped.exit.code == 3
        assert eventually(lambda: not list(directory.iterdir())), "its note is dropped"


def test_what_the_oom_killer_did_meanwhile_is_told_before_the_end(group: FakeGroup, directory: Path) -> None:
    """The container is known by then, and its end is not told yet."""
    entry = an_entry(State.RUNNING)
    entry.init_watch = Watch(ProcessId(77, 7), -1, lambda status: None)
    context_of(group, directory).note(entry)
    known: list[State] = []
    for context in running(context_of(group, directory, {77: 9})):
        read = lambda: known.extend(e.state for e in context.lifecycle.containers())  # noqa: E731, B023
        cast(FakeExits, context.exits).read_kills = read  # type: ignore[method-assign]
        restored(context)
    assert known == [State.RUNNING]


def test_armed_gates_are_known_again(group: FakeGroup, directory: Path, tmp_path: Path) -> None:
    entry = an_entry(State.CREATING)
    entry.gated = True
    before = context_of(group, directory)
    before.pid_files.add(entry, os.open(tmp_path, os.O_RDONLY), "pid")
    program = os.open(tmp_path / "..", os.O_PATH)
    before.programs.add(entry, program)
    before.note(entry)
    before.pid_files.close()
    after = context_of(group, directory)
    (again,) = restored(after)
    (tmp_path / "pid").write_text("1")
    file = os.open(tmp_path / "pid", os.O_RDONLY)
    assert after.pid_files.match(file) is again
    assert after.programs.match(program) == [again]
    assert again.gated and not again.passed
    after.pid_files.close()
    os.close(file)
    os.close(program)


def test_a_directory_that_was_replaced_is_not_watched(
    group: FakeGroup, directory: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    entry = an_entry(State.CREATING)
    before = context_of(group, directory)
    before.pid_files.add(entry, os.open(place, os.O_RDONLY), "pid")
    before.note(entry)
    before.pid_files.close()
    place.rename(tmp_path / "old")
    place.mkdir()
    after = context_of(group, directory)
    (again,) = restored(after)
    assert after.pid_files.place(again) is None


@pytest.mark.parametrize("tid", [0, 1])
def test_a_command_that_is_held_again_begins_anew(
    tid: int, group: FakeGroup, directory: Path, tmp_path: Path
) -> None:
    """Whichever of its process's threads executes it."""
    host, entry = FakeHost(tmp_path / "host"), an_entry(State.CREATING)
    task = host.process(entry.runtime.pid + tid) / "status"
    task.write_text(
        task.read_text().replace(f"Tgid:\t{entry.runtime.pid + tid}", f"Tgid:\t{entry.runtime.pid}")
    )
    context_of(group, directory).note(entry)
    held = (entry.runtime.pid + tid, 4_000_000)  # the other one was killed
    assert restored(replace(context_of(group, directory), proc=host.proc), held) == []
    assert not list(directory.iterdir())


def test_a_verdict_that_is_due_is_kept(group: FakeGroup, directory: Path) -> None:
    entry = an_entry(State.CREATED)
    entry.verdict = Deny("no", "rule")
    context_of(group, directory).note(entry)
    (again,) = restored(context_of(group, directory))
    assert again.verdict == Deny("no", "rule")


@pytest.mark.parametrize("junk", [b"", b"{", b"{}", b'{"root": 1}'])
def test_half_a_note_is_no_note(junk: bytes, group: FakeGroup, directory: Path) -> None:
    (directory / "5-6").write_bytes(junk)
    (directory / "5-7.new").write_bytes(junk)
    assert restored(context_of(group, directory)) == []
    assert not list(directory.iterdir())


def test_a_lone_watcher_notes_nothing(group: FakeGroup, tmp_path: Path) -> None:
    entry = an_entry(State.RUNNING)
    make_context(group).note(entry)
    assert list(Notes("")) == []
    Notes("").drop(entry)


def test_a_container_that_stopped_leaves_no_note(group: FakeGroup, directory: Path) -> None:
    entry = an_entry(State.CREATING)
    context = context_of(group, directory)
    context.note(entry)
    lifecycle = Lifecycle(lambda unsettled: None)
    lifecycle.begin(entry)
    lifecycle.told(entry)
    assert lifecycle.stopped(entry, End(0))
    context.notes.drop(entry)
    context.note(entry)  # a gate that comes late
    assert not list(directory.iterdir())


def test_a_note_that_was_not_renamed_yet_is_dropped(group: FakeGroup, directory: Path) -> None:
    """Else it stays for ever, and its container is taken over again and again."""
    context_of(group, directory).note(an_entry(State.RUNNING))
    (note,) = directory.iterdir()
    (directory / f"{note.name}.new").write_bytes(note.read_bytes())
    (again,) = restored(context_of(group, directory))
    assert again.state is State.RUNNING
    assert list(directory.iterdir()) == [note], "the whole one is kept"


def test_a_directory_that_somebody_removed(group: FakeGroup, directory: Path) -> None:
    directory.rmdir()
    assert restored(context_of(group, directory)) == []
    context_of(group, directory).note(an_entry(State.RUNNING))
    assert restored(context_of(group, directory))


def test_notes_of_daemons_that_were_killed_are_removed(tmp_path: Path) -> None:
    parent = tmp_path / "startgate"
    living, lock = notes.create(str(parent))
    killed, gone = notes.create(str(parent))
    Path(killed, "1-2").touch()
    (parent / "other").mkdir()
    os.close(gone)
    third, fd = notes.create(str(parent))
    assert {str(path) for path in parent.iterdir()} == {living, third, str(parent / "other")}
    os.close(lock)
    os.close(fd)


def test_what_is_kept_beside_the_notes_is_no_note(group: FakeGroup, directory: Path) -> None:
    (directory / notes.IN_FORCE).write_text("{}")
    (directory / f"{notes.IN_FORCE}.new").write_text("{")
    assert restored(context_of(group, directory)) == []
    assert [path.name for path in directory.iterdir()] == [notes.IN_FORCE]


def test_what_others_put_among_the_notes_harms_nothing(tmp_path: Path) -> None:
    for name in ("README", "12-", "x-1", "\u0661-\u0662", ".hidden.new", "1-2.new"):
        (tmp_path / name).write_text("junk")
    (tmp_path / "3-4").mkdir()
    (tmp_path / "5-6.new").mkdir()
    assert list(Notes(str(tmp_path))) == []
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(["README", "12-", "x-1", "\u0661-\u0662", ".hidden.new", "3-4", "5-6.new"])


def test_names_that_are_no_utf8(group: FakeGroup, directory: Path) -> None:
    entry = an_entry(State.CREATING)
    entry.key = Key("/run/state-\udcff", "c\udcfe")
    entry.root = "/state-\udcff"
    entry.pids = PidNamespace(4026532000, 3)
    entry.log = RuntimeLog("/log-\udcff", (1, 2), 3, ProcessId(4, 5))
    context_of(group, directory).note(entry)
    (noted,) = Notes(str(directory))
    again = noted.entry()
    assert (again.key, again.root, again.pids, again.log) == (entry.key, entry.root, entry.pids, entry.log)
