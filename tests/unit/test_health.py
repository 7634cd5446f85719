from __future__ import annotations

import pytest

from startgate.agent.health import Health
from startgate.inherited.progress import Snapshot

HANG, HOLD = 2.0, 2.0


class Worker:
    """A worker's counters, and a clock."""

    def __init__(self) -> None:
        self.health = Health(HANG, HOLD)
        self.now = 100.0
        self.turns = [5, 7, 11]
        self.answers = 3
        self.held = 0

    def look(self) -> str | None:
        return self.health.look(self.now, Snapshot(tuple(self.turns), self.held, self.answers))

    def silent_for(self, seconds: float) -> str | None:
        """Look again and again while nothing moves; return what is found."""
        until = self.now + seconds
        verdict = None
        while verdict is None and self.now < until:
            self.now += self.health.period
            verdict = self.look()
        return verdict


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    assert worker.look() is None
    return worker


def test_a_silent_worker_hangs_within_the_limit(worker: Worker) -> None:
    began = worker.now
    verdict = worker.silent_for(60)
    assert verdict and "reading threads" in verdict
    assert HANG / 2 < worker.now - began <= HANG * 0.75


def test_a_worker_that_moves_does_not(worker: Worker) -> None:
    for _ in range(1000):
        worker.now += worker.health.period
        worker.turns = [turns + 1 for turns in worker.turns]
        assert worker.look() is None


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_each_of_them_must_move(worker: Worker, silent: int) -> None:
    verdict = None
    for _ in range(100):
        worker.now += worker.health.period
        worker.turns = [turns + (at != silent) for at, turns in enumerate(worker.turns)]
        verdict = verdict or worker.look()
    assert verdict and "reading threads" in verdict


def test_answers_may_take_as_long_as_holds_may(worker: Worker) -> None:
    worker.held = 1
    began = worker.now
    verdict = None
    while verdict is None and worker.now < began + 60:
        worker.now += worker.health.period
        worker.turns = [turns + 1 for turns in worker.turns]
        verdict = worker.look()
    assert verdict and "no answer" in verdict and "1 tasks" in verdict
    assert HOLD + HANG / 2 <= worker.now - began < HOLD + HANG


def test_one_answer_is_a_sign_of_life(worker: Worker) -> None:
    worker.held = 5
    for _ in range(1000):
        worker.now += worker.health.period
        worker.turns = [turns + 1 for turns in worker.turns]
        worker.answers += 1
        assert worker.look() is None


def test_rest_ends_the_silence(worker: Worker) -> None:
    assert worker.silent_for(HANG / 2) is None
    worker.health.rest()
    worker.now += 3600
    assert worker.look() is None
    assert worker.silent_for(HANG / 2) is None


def test_time_in_which_the_supervisor_did_not_run_does_not_count(worker: Worker) -> None:
    """A suspended machine, a SIGSTOP to all of it, a starved CPU."""
    assert worker.silent_for(HANG / 2) is None
    worker.now += 3600
    assert worker.look() is None
    assert worker.silent_for(HANG)
