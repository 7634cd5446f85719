"""What a process of the keeper may ask of the kernel: who runs code in the door or the yard has little of it.

Which calls those are: tests/native/sandbox_check.c.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.agent import Agent, running
from tests.faults.load import Load
from tests.kernel.support import eventually

pytestmark = pytest.mark.timeout(180)


def test_the_door_and_the_yard_have_a_filter(load: Load) -> None:
    """They have one from their start, and one only, also after upgrades; so has a yard that is new."""
    with running() as agent:
        guard = _status(agent.guard)
        assert _confined(agent, guard), agent.log
        capabilities = [_status(pid)["CapEff"] for pid in (agent.door, agent.yard)]
        for times in range(1, 3):
            os.kill(agent.process.pid, signal.SIGUSR2)
            agent.wait_ready(times + 1)
            assert eventually(lambda: _confined(agent, guard)), agent.log
        assert capabilities == [_status(pid)["CapEff"] for pid in (agent.door, agent.yard)]
        before = agent.yard
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: agent.yard not in (0, before) and _confined(agent, guard)), agent.log
        assert eventually(lambda: any("yard was replaced" in message for message in agent.lost)), agent.lost
        load.start(3)
        assert not load.wait_told(agent) and len(load.held(agent)) == 3
        assert not any("no filter" in line for line in agent.log), agent.log


def _confined(agent: Agent, guard: dict[str, str]) -> bool:
    """Have both one filter more than the guard? It has none of ours: it forks, executes and kills."""
    return all(
        status.get("Seccomp") == "2"
        and status.get("NoNewPrivs") == "1"
        and _filters(status) in (None, (_filters(guard) or 0) + 1)
        for status in map(_status, (agent.door, agent.yard))
    )


def _filters(status: dict[str, str]) -> int | None:
    """How many they are; Linux 5.9 and newer tell."""
    number = status.get("Seccomp_filters")
    return None if number is None else int(number)


def _status(pid: int) -> dict[str, str]:
    if not pid:
        return {}  # it is just being executed, or started
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
