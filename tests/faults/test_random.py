"""Faults at random, one after the other, while containers start."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from tests.faults.agent import Agent, pause, running
from tests.faults.conftest import SOAK, Tell
from tests.faults.load import GATES, Load
from tests.faults.probe import probing
from tests.kernel.support import eventually

FAULTS = 30 if SOAK else 8


def _signal(part: str, number: signal.Signals) -> Callable[[Agent], None]:
    """A signal to one part, and a wait until what it ends is replaced."""

    def send(agent: Agent) -> None:
        before, ready = getattr(agent, part), agent.starts
        os.kill(before, number)
        if part == "worker" or number == signal.SIGUSR2:
            agent.wait_ready(ready + 1)
        elif number == signal.SIGKILL:
            assert eventually(lambda: agent.yard not in (0, before))

    return send


KINDS = {
    f"{part} {number.name}": _signal(part, number)
    for part, number in (
        ("worker", signal.SIGKILL),
        ("worker", signal.SIGSTOP),
        ("worker", signal.SIGTERM),
        ("worker", signal.SIGSEGV),
        ("door", signal.SIGSTOP),
        ("yard", signal.SIGSTOP),
        ("yard", signal.SIGKILL),
        ("guard", signal.SIGUSR2),
    )
}


@pytest.mark.timeout(1800)
def test_random_faults(load: Load, tell: Tell) -> None:
    """Whatever comes after whatever: no start fails, none is missed unless a `lost` event says so."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    kinds = [*KINDS] * (FAULTS // len(KINDS) + 1)
    dice.shuffle(kinds)
    with running() as agent:
        load.warm_up(agent)
        keeper = agent.guard, agent.door
        with probing(load.runtime) as probe, load.under_way():
            for kind in kinds[:FAULTS]:
                pause(dice.uniform(0.1, 1.0))
                KINDS[kind](agent)
            while SOAK and len(load.took) < 300:
                pause(0.1)
        untold = load.wait_told(agent)
        note = f"{len(agent.lost)} `lost` events"
        tell(f"{FAULTS} faults at random, of {len(KINDS)} kinds", load, agent, note=note, probe=probe)
        assert not load.failed, (seed, load.failed)
        assert not untold or agent.lost, (seed, kinds, [agent.of(c) for c in untold])
        assert load.longest_delay <= GATES * agent.delay_limit + load.usual, (seed, kinds)
        assert (agent.guard, agent.door) == keeper, agent.log
        assert agent.stop() == 0
