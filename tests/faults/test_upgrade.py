"""SIGUSR2: guard, door and yard become what is installed now, in place; the next worker starts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.agent import Agent, pause, running
from tests.faults.conftest import Tell
from tests.faults.load import Load, assert_nothing_missed
from tests.faults.probe import probing

pytestmark = pytest.mark.timeout(180)


def test_upgraded(load: Load, tell: Tell) -> None:
    """Starts before, during and after it are held: its processes stay, and so do their groups and holds."""
    with running() as agent:
        load.warm_up(agent)
        before, workers = _keeper(agent), {agent.worker}
        executed = _executed(before)
        with probing(load.runtime) as probe, load.under_way():
            for times in range(1, 4):
                pause(0.5)
                os.kill(agent.process.pid, signal.SIGUSR2)
                agent.wait_ready(times + 1)
                workers.add(agent.worker)
            pause(0.5)
        load.wait_told(agent)
        tell("upgraded while it runs (SIGUSR2)", load, agent, note="3 times", probe=probe)
        assert_nothing_missed(load, agent)
        assert _keeper(agent) == before
        assert len(workers) == 4, "each upgrade brings a new worker"
        assert not any(map(_has, executed, _executed(before))), "all three have been executed anew"
        assert agent.stop() == 0


def _keeper(agent: Agent) -> tuple[int, int, int]:
    return agent.process.pid, agent.door, agent.yard


def _executed(pids: tuple[int, ...]) -> list[str]:
    """Return where the stack of each begins: another address after each execve(2)."""
    return [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[25] for pid in pids]


def _has(before: str, after: str) -> bool:
    return before == after


def test_signals_that_come_while_it_is_executed(load: Load) -> None:
    """The guard executes itself anew: a signal then must not kill it."""
    with running() as agent:
        load.warm_up(agent)
        for number in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
            os.kill(agent.process.pid, number)
            pause(0.03)
        load.start(3)
        assert_nothing_missed(load, agent)
        assert agent.process.poll() is None
        assert agent.stop() == 0


def test_what_is_held_survives_it(load: Load) -> None:
    """A start that waits for a hook is still held by the next worker, which asks the hook again."""
    with running("--hook", "created=sleep 0.7", "--hold-timeout", "20") as agent:
        with load.under_way(at_once=2):
            for times in range(1, 4):
                pause(0.6)
                os.kill(agent.process.pid, signal.SIGUSR2)
                agent.wait_ready(times + 1)
        load.usual = 5.0
        assert_nothing_missed(load, agent)
        held = [e.get("held_us") for c in load.took for e in agent.of(c) if e["type"] == "created"]
        assert all(us is None or us > 600_000 for us in held), (
            [
                (e["type"], e["time"][17:], e.get("held_us"), e["gate"], e.get("reason"))
                for c in load.took
                for e in agent.of(c)
            ],
            agent.log,
        )
