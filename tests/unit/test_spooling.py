"""A daemon's worker spools all that it is told, whatever it prints; and counts, from time to time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from startgate.agent import counting
from startgate.agent.counting import Counting
from startgate.cli.watch import Watch
from startgate.counter import Counter, Executions
from startgate.events import Event
from startgate.inherited import outbox
from startgate.inherited.outbox import Outbox
from startgate.journal.spool import Spool, segments
from startgate.testing import make_event
from startgate.watcher import Watcher


class Told(Watcher):
    """A watcher that is told what to tell."""

    count: Counter | None = Counter("today", Executions(1, 0), Executions())

    def __init__(self, number: int) -> None:
        super().__init__()
        self._events = Outbox(outbox.create(number))
        self._listeners.attach(self._events)

    def counted(self) -> Counter | None:
        return self.count


@pytest.fixture
def watcher() -> Iterator[Told]:
    found = Told(7)
    yield found
    events = found.events
    assert isinstance(events, Outbox)
    events.close()
    events._at.release()
    events._memory.close()
    os.close(events._fd)


def spooled(directory: Path) -> list[tuple[int, str]]:
    data = b"".join(Path(segment.path).read_bytes() for segment in segments(str(directory)))
    return [(event["sequence"], event["type"]) for event in map(json.loads, data.splitlines())]


def test_the_filter_is_the_outputs(tmp_path: Path, watcher: Told, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Spool(str(tmp_path))) as spool:
        spool._last = 7  # as the daemon before left it
        watch = Watch(watcher, "json", keep='type == "exec"', spool=spool)
        assert [watch._tell(make_event(kind)) for kind in ("created", "exec", "stopped")] == [
            False,
            True,
            False,
        ]
    assert spooled(tmp_path) == [(8, "created"), (9, "exec"), (10, "stopped")]
    printed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(event["sequence"], event["type"]) for event in printed] == [(9, "exec")]


def test_at_the_end_nothing_is_left(tmp_path: Path, watcher: Told) -> None:
    for kind in ("created", "stopped"):
        watcher.publish(make_event(kind))
    with closing(Spool(str(tmp_path))) as spool:
        spool._last = 7
        Watch(watcher, "none", spool=spool)._finish()
    assert [kind for _, kind in spooled(tmp_path)][-3:] == ["created", "stopped", "counted"]


def test_a_count_is_told_once_a_minute_if_it_is_another(
    watcher: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counting(watcher)
    assert 59 < counter.left <= 60 and not counter.is_due()
    told: list[Event] = []
    monkeypatch.setattr(watcher, "publish", told.append)
    monkeypatch.setattr(counting, "EVERY", 0.0)
    for count, times in (
        (watcher.count, 1),
        (watcher.count, 1),
        (None, 1),
        (Counter("x", *[Executions()] * 2), 2),
    ):
        monkeypatch.setattr(watcher, "count", count)
        counter._due = 0.0
        assert counter.is_due() and len(told) == times
    assert (told[0].type, told[0].counted) == ("counted", Told.count)
