from __future__ import annotations

import os
import resource
import threading
from contextlib import nullcontext

import pytest

from startgate import fdlimit


def limit(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    fds = len(os.listdir("/proc/self/fd")) + free
    monkeypatch.setattr(resource, "getrlimit", lambda which: (fds, fds))


def test_where_there_are_plenty_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 1 << 20)
    assert isinstance(fdlimit.room_for_jobs(), nullcontext)


def test_where_fds_are_short_jobs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 24)
    room, inside, most = fdlimit.room_for_jobs(), [0], [0]
    turn = threading.Barrier(8)

    def job() -> None:
        turn.wait()
        with room:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1

    threads = [threading.Thread(target=job) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is inside may wait for who wants in."""
    limit(monkeypatch, 8)
    monkeypatch.setattr(fdlimit, "_PATIENCE", 0.01)
    room = fdlimit.room_for_jobs()
    entered = threading.Event()

    def second() -> None:
        with room:
            entered.set()

    with room:
        thread = threading.Thread(target=second)
        thread.start()
        assert entered.wait(10)
        thread.join()
    with room:
        pass
