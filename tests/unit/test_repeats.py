from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from startgate.events import Process
from startgate.gates.repeats import Repeats
from startgate.hold import Hold
from startgate.kernel.process import ProcessId
from startgate.records import ExecRecord
from tests.unit.fakes import FakeGroup, FakeHost

TID = 42
KNOWN = ExecRecord(TID, TID, 1, trusted=True, arguments=[], complete=True)
LS = Process(argv=("ls",))


@pytest.fixture
def repeats(host: FakeHost) -> Repeats:
    host.process(TID)
    return Repeats(host.proc)


@pytest.fixture
def hold(group: FakeGroup) -> Iterator[Hold]:
    hold = group.hold()
    yield hold
    hold.allow()


def test_the_same_process_again(repeats: Repeats, hold: Hold) -> None:
    assert not repeats.seen(KNOWN, "c1", LS, hold)
    assert repeats.seen(KNOWN, "c1", LS, hold)
    assert not repeats.seen(KNOWN, "c1", Process(argv=("sh",)), hold), "its process file was rewritten"
    assert not repeats.seen(KNOWN, "c2", LS, hold)


def test_a_wrapper_that_executes_the_runtime_as_a_child(repeats: Repeats, hold: Hold, host: FakeHost) -> None:
    assert not repeats.seen(KNOWN, "c1", LS, hold)
    host.process(4343, ppid=TID)
    child = replace(KNOWN, tid=4343, tgid=4343, ppid=TID)
    assert repeats.seen(child, "c1", LS, hold)
    assert not repeats.seen(child, "c1", None, hold)
    hold.deny()
    assert not repeats.seen(KNOWN, "c1", LS, hold), "who was denied is judged again"


def test_a_pid_that_was_reused_is_another_process(
    repeats: Repeats, hold: Hold, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not repeats.seen(KNOWN, "c1", LS, hold)
    monkeypatch.setattr(host.proc, "identify", lambda pid: ProcessId(pid, 9999))
    assert not repeats.seen(KNOWN, "c1", LS, hold)
    monkeypatch.undo()
    (host.root / f"proc/{TID}/stat").unlink()
    assert not repeats.seen(KNOWN, "c1", LS, hold)


def test_memory_is_bounded(host: FakeHost, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    repeats = Repeats(host.proc)
    monkeypatch.setattr(repeats, "_SIZE", 3)
    known = [replace(KNOWN, tgid=pid, start_time=0) for pid in range(100, 105)]
    assert not any(repeats.seen(one, "c1", LS, hold) for one in known)
    assert repeats.seen(known[-1], "c1", LS, hold)
    assert not repeats.seen(known[0], "c1", LS, hold)
