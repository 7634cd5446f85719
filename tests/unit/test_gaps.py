from __future__ import annotations

import pytest

from startgate.events import Reason
from startgate.gates.gaps import Gaps
from startgate.lifecycle import Entry, Lifecycle, State
from tests.unit.fakes import make_entry


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle(lambda count: None)


def test_one_thread_looks_after_all_gaps(lifecycle: Lifecycle) -> None:
    """What comes meanwhile is its next work, and keeps no further worker."""
    entry, looked = make_entry(), list[int]()
    lifecycle.begin(entry)

    def look_for(*entries: Entry, reason: Reason | None = None) -> None:
        looked.append(len(entries))
        if len(looked) == 1:
            gaps.catch_up()
            assert len(looked) == 1
        else:
            entry.state = State.STOPPED

    gaps = Gaps(lifecycle, look_for)
    gaps.catch_up()
    gaps.catch_up()  # nothing is being created any more
    assert looked == [1, 1]


def test_a_look_that_fails_is_not_the_last(lifecycle: Lifecycle) -> None:
    lifecycle.begin(make_entry())
    looked: list[int] = []

    def look_for(*entries: Entry, reason: Reason | None = None) -> None:
        looked.append(len(entries))
        raise OSError(5, "once")

    gaps = Gaps(lifecycle, look_for)
    for _ in range(2):
        with pytest.raises(OSError, match="once"):
            gaps.catch_up()
    assert looked == [1, 1]
