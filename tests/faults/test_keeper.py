"""The keeper's own processes die or stop: starts go on, and are held again soon."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from functools import partial

import pytest

from tests.faults.agent import Agent, pause, running
from tests.faults.conftest import Tell
from tests.faults.load import Load, assert_nothing_missed
from tests.faults.probe import probing
from tests.kernel.support import eventually

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("part", ["guard", "door"])
def test_killed_and_started_again(part: str, load: Load, tell: Tell) -> None:
    """All end with it, and the kernel lets all go; an init system starts the next one."""
    with ExitStack() as started:
        first = started.enter_context(running())
        load.warm_up(first)
        with probing(load.runtime) as probe, load.under_way():
            pause(0.5)
            gone = [first.door, first.yard, first.worker]
            os.kill(first.process.pid if part == "guard" else first.door, signal.SIGKILL)
            first.process.wait(10)
            assert eventually(lambda: not any(map(_lives, gone)), 5), "who outlives the guard may hold tasks"
            second = started.enter_context(running())
            pause(0.5)
        load.start(1, "last")
        assert eventually(lambda: second.types(f"{load.prefix}-last0") == ["creating", "created", "stopped"])
        second.events[:0] = first.events
        load.wait_told(second, 1)
        note = "started again as by an init system; nobody watches in between"
        tell(f"{part} killed (SIGKILL)", load, second, note=note, probe=probe)
        assert not load.failed
        assert load.longest_delay < second.hang_limit


@pytest.mark.parametrize("part", ["guard", "door", "yard"])
def test_stopped(part: str, load: Load, tell: Tell) -> None:
    """The guard continues its children at once; nobody waits for the guard itself."""
    with running() as agent:
        load.warm_up(agent)
        pid = agent.process.pid if part == "guard" else _pid(agent, part)
        with probing(load.runtime) as probe, load.under_way():
            for _ in range(5):
                pause(0.3)
                os.kill(pid, signal.SIGSTOP)
        os.kill(agent.process.pid, signal.SIGCONT)
        load.wait_told(agent)
        tell(f"{part} stopped (SIGSTOP)", load, agent, note="5 times" * (part != "guard"), probe=probe)
        assert_nothing_missed(load, agent)
        assert load.longest_delay < agent.hang_limit / 2 + load.usual
        assert part == "guard" or _pid(agent, part) == pid
        assert agent.starts == 1, agent.log


def test_the_yard_is_killed(load: Load, tell: Tell) -> None:
    """Another one is made, its marks again: the worker stays. Who is between two gates then may go unheld."""
    with running() as agent:
        load.warm_up(agent)
        before = agent.yard, agent.door, agent.worker
        with probing(load.runtime) as probe, load.under_way():
            for times in range(1, 4):
                pause(0.5)
                os.kill(agent.yard, signal.SIGKILL)
                assert eventually(partial(_yards, agent, times))
            pause(0.5)
        told = load.wait_told(agent)
        tell("yard killed (SIGKILL)", load, agent, note="3 times; each is told by `lost`", probe=probe)
        assert not load.failed and len(told) <= 3, [agent.of(c) for c in told]
        assert eventually(lambda: sum("yard" in message for message in agent.lost) == 3), agent.lost
        assert load.longest_delay < agent.hang_limit
        assert agent.yard != before[0] and (agent.door, agent.worker) == before[1:]
        load.took.clear()
        load.start(4, "after")
        assert not load.wait_told(agent) and len(load.held(agent)) == 4


def _yards(agent: Agent, number: int) -> bool:
    return sum("a new yard" in line for line in list(agent.log)) == number


def _pid(agent: Agent, part: str) -> int:
    return agent.door if part == "door" else agent.yard


def _lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}/fdinfo/0")
