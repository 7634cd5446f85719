from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from startgate.workers import Workers

PATIENCE = 10.0
Results = queue.SimpleQueue
Numbers = list[int]


class Spying(Workers):
    """Tells of each thread, after a job, whether it stays."""

    def __init__(self, limit: int = 128, spare: int = 8) -> None:
        super().__init__(limit, spare)
        self.stays: Results[bool] = queue.SimpleQueue()

    def _stay(self) -> bool:
        stays = super()._stay()
        self.stays.put(stays)
        return stays


class Gatehouse:
    """Jobs that wait until they are let go, and tell on which thread they run."""

    def __init__(self) -> None:
        self.entered: Results[threading.Thread] = queue.SimpleQueue()
        self.open = threading.Event()

    def job(self) -> None:
        self.entered.put(threading.current_thread())
        assert self.open.wait(PATIENCE)

    def threads(self, count: int) -> list[threading.Thread]:
        return [self.entered.get(timeout=PATIENCE) for _ in range(count)]


@pytest.fixture
def gatehouse() -> Iterator[Gatehouse]:
    gatehouse = Gatehouse()
    yield gatehouse
    gatehouse.open.set()


def started(limit: int = 128, spare: int = 8) -> Spying:
    workers = Spying(limit, spare)
    workers.start()
    return workers


def test_a_job_is_run_on_another_thread(gatehouse: Gatehouse) -> None:
    workers = started()
    workers.submit(gatehouse.job)
    (thread,) = gatehouse.threads(1)
    assert thread is not threading.current_thread()
    assert thread.daemon
    workers.close()


def test_jobs_run_at_the_same_time(gatehouse: Gatehouse) -> None:
    workers = started()
    for _ in range(20):
        workers.submit(gatehouse.job)
    assert len(set(gatehouse.threads(20))) == 20
    workers.close()


def test_there_are_never_more_threads_than_the_limit(gatehouse: Gatehouse) -> None:
    workers = started(limit=3)
    for _ in range(10):
        workers.submit(gatehouse.job)
    first = gatehouse.threads(3)
    assert gatehouse.entered.empty()
    gatehouse.open.set()
    assert set(gatehouse.threads(7)) <= set(first)
    workers.close()


def test_one_thread_runs_jobs_in_their_order() -> None:
    workers, order, done = started(limit=1), Numbers(), threading.Event()
    for number in range(50):
        workers.submit(partial(order.append, number))
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    assert order == list(range(50))
    workers.close()


def test_submitting_starts_no_thread(gatehouse: Gatehouse) -> None:
    workers = Spying()
    before = threading.active_count()
    workers.submit(gatehouse.job)
    assert threading.active_count() == before
    workers.start()
    assert len(gatehouse.threads(1)) == 1
    workers.close()


def test_only_the_spare_threads_stay(gatehouse: Gatehouse) -> None:
    workers = started(limit=5, spare=2)
    for _ in range(5):
        workers.submit(gatehouse.job)
    threads = gatehouse.threads(5)
    gatehouse.open.set()
    assert sorted(workers.stays.get(timeout=PATIENCE) for _ in threads) == [False, False, False, True, True]
    workers.close()


def test_a_job_that_fails_is_logged_and_its_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    workers, done = started(limit=1), threading.Event()
    workers.submit(fail)
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    workers.close()
    assert "a worker's job failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def fail() -> None:
    raise ZeroDivisionError


def leave() -> None:
    raise SystemExit


def test_a_job_that_exits_does_not_cost_a_thread() -> None:
    """A callback may call sys.exit()."""
    workers, done = started(limit=2), threading.Event()
    for _ in range(2):
        workers.submit(leave)
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    workers.close()


def test_where_no_thread_can_be_started_jobs_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workers, order, done = started(), Numbers(), threading.Event()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(5):
        workers.submit(partial(order.append, number))
    workers.submit(done.set)
    assert done.wait(PATIENCE)
    monkeypatch.undo()
    workers.close()
    assert order == list(range(5))
    assert "no further worker thread: can't start new thread" in caplog.text


def test_nothing_is_run_after_closing(gatehouse: Gatehouse) -> None:
    workers = started(limit=1)
    workers.submit(gatehouse.job)
    (thread,) = gatehouse.threads(1)
    late: list[str] = []
    workers.submit(lambda: late.append("submitted before closing, but waiting still"))
    workers.close()
    workers.submit(lambda: late.append("submitted after closing"))
    gatehouse.open.set()
    thread.join(PATIENCE)
    assert late == []


def test_workers_that_are_closed_start_no_thread() -> None:
    workers = Spying()
    workers.close()
    before = threading.active_count()
    workers.start()
    assert threading.active_count() == before


def test_closing_ends_the_idle_threads(gatehouse: Gatehouse) -> None:
    workers = started(limit=4)
    for _ in range(4):
        workers.submit(gatehouse.job)
    threads = gatehouse.threads(4)
    gatehouse.open.set()
    assert all(workers.stays.get(timeout=PATIENCE) for _ in threads)
    workers.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_closing_does_not_wait_for_a_job_that_is_stuck(gatehouse: Gatehouse) -> None:
    workers = started()
    workers.submit(gatehouse.job)
    (thread,) = gatehouse.threads(1)
    workers.close()
    assert thread.is_alive()
    gatehouse.open.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_many_jobs_from_many_threads() -> None:
    workers, results = started(limit=8, spare=1), queue.SimpleQueue[int]()

    def submit(start: int) -> None:
        for number in range(start, start + 250):
            workers.submit(partial(results.put, number))

    threads = [threading.Thread(target=submit, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len({results.get(timeout=PATIENCE) for _ in range(1000)}) == 1000
    workers.close()
