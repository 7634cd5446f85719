"""The next worker does not come up, or not in time: nobody waits for it for long."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.faults.agent import UNSEEN, Agent, pace, pause, running
from tests.faults.load import Load, assert_nothing_missed
from tests.kernel.support import eventually

# A worker that starts while there is a file `broken` ends. While there is `slow`, it sleeps before it
# says hello to the keeper; while there is `stuck`, when it is told what is held, and before it listens.
START_TRAP = """
import os, sys, time
from pathlib import Path

if "startgate.agent.worker" in sys.orig_argv:
    def spring(name):
        try:
            Path(os.environ["START_TRAP"], name).unlink()
        except FileNotFoundError:
            return
        time.sleep(float(os.environ["START_SLEEP"]))

    if Path(os.environ["START_TRAP"], "broken").exists():
        os._exit(3)

    from startgate import watcher

    reading = watcher.reading
    watcher.reading = lambda *arguments: (spring("stuck"), reading(*arguments))[1]
    spring("slow")
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """The directory for START_TRAP; not beside the pid files: what is read there is held."""
    place = tmp_path / "python"
    place.mkdir()
    (place / "sitecustomize.py").write_text(START_TRAP)
    return place


def trapped(trap: Path, sleep: float) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(trap), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "START_TRAP": str(trap), "START_SLEEP": str(sleep)}


def next_in(agent: Agent, trap: Path, name: str) -> int:
    """Kill the worker; return the next one's pid once it is in that trap."""
    (trap / name).touch()
    agent.signal_worker(signal.SIGKILL)
    assert eventually(lambda: agent.worker and not (trap / name).exists())
    return agent.worker


def none_can_start(agent: Agent, trap: Path) -> None:
    """Kill the worker and the next ones, for longer than any start waits for one."""
    (trap / "broken").touch()
    agent.signal_worker(signal.SIGKILL)
    pause(agent.hang_limit + 0.2)


@pytest.mark.timeout(180)
def test_no_worker_can_start(load: Load, trap: Path) -> None:
    """Nobody waits for one, and the first that can tells what was let go unseen."""
    with running(env=trapped(trap, 0)) as agent:
        load.warm_up(agent)
        none_can_start(agent, trap)
        load.start(3)
        assert not load.failed
        assert load.longest_delay < agent.hang_limit / 2
        (trap / "broken").unlink()
        agent.wait_ready(2)
        assert eventually(lambda: any(UNSEEN in message for message in agent.lost)), (agent.lost, agent.log)
        load.start(1, "after")
        load.wait_told(agent, 1)
        assert "created" in agent.types(f"{load.prefix}-after0")
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_a_worker_that_finds_its_rules_broken(load: Load, tmp_path: Path) -> None:
    """What was last in force stays in force; once the file is mended, it is loaded."""
    policy, hook = tmp_path / "policy.toml", tmp_path / "hook"
    rule = '[[rule]]\nname = "{}"\nmatch = "true"\naction = "deny"\n'
    policy.write_text(rule.format("first"))
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    with running("--policy", str(policy), "--hook", f"stopped={hook}") as agent:
        policy.write_text(rule.format("changed"))
        assert eventually(lambda: any("reloaded" in line for line in list(agent.log)))
        policy.write_text("no rule")
        hook.unlink()
        agent.signal_worker(signal.SIGKILL)
        agent.wait_ready(2)
        assert refused_by(load, agent, "broken") == "changed"
        assert any("policy.toml:1:" in line and "last in force stays" in line for line in agent.log)
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        policy.write_text(rule.format("mended"))
        assert eventually(lambda: sum("reloaded" in line for line in list(agent.log)) == 2)
        assert refused_by(load, agent, "mended") == "mended"
        assert not agent.lost
        assert agent.stop() == 0


def refused_by(load: Load, agent: Agent, name: str) -> str:
    """Return the rule by which a start is refused."""
    load.start(1, name)
    container = f"{load.prefix}-{name}0"
    assert container in load.failed
    assert eventually(lambda: agent.types(container) == ["denied"]), agent.of(container)
    return str(agent.of(container)[0]["reason"]["rule"])


@pytest.mark.timeout(180)
def test_a_worker_that_is_slow_to_start(load: Load, trap: Path) -> None:
    """While it can't read yet nobody waits for it; it tells itself what was let go meanwhile."""
    with running(env=trapped(trap, pace() * 3)) as agent:
        load.warm_up(agent)
        slow = next_in(agent, trap, "slow")
        load.start(2, "waits", at_once=2)
        assert load.longest_delay <= agent.delay_limit + load.usual
        load.took.clear()
        load.start(3, "unseen", at_once=1)
        assert load.longest_delay < agent.hang_limit / 2, "nobody is held any more"
        load.took.clear()
        agent.wait_ready(2)
        assert agent.worker == slow
        assert eventually(lambda: any(UNSEEN in message for message in agent.lost)), (agent.lost, agent.log)
        agent.events.clear()
        load.start(2, "after")
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_a_worker_that_is_told_and_never_listens(load: Load, trap: Path) -> None:
    """It is killed as a silent one, and what it was told is told to the next one."""
    with running(env=trapped(trap, 60)) as agent:
        load.warm_up(agent)
        stuck = next_in(agent, trap, "stuck")
        with load.under_way():
            agent.wait_ready(2)
        assert agent.worker != stuck
        assert sum("it gave no sign of life" in line for line in agent.log) == 1, agent.log
        assert not load.failed
        assert load.longest_delay <= agent.delay_limit + load.usual
        assert not load.wait_told(agent)
        load.took.clear()
        load.start(2, "after")
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_upgraded_while_no_worker_can_start(load: Load, trap: Path) -> None:
    """The new keeper goes on where it was: nobody is held anew, and it does not end."""
    with running(env=trapped(trap, 0)) as agent:
        load.warm_up(agent)
        none_can_start(agent, trap)
        os.kill(agent.process.pid, signal.SIGUSR2)
        pause(agent.hang_limit * 0.1)
        load.start(3)
        assert not load.failed
        assert load.longest_delay < agent.hang_limit / 2, "nobody is held anew"
        assert agent.process.poll() is None
        (trap / "broken").unlink()
        agent.wait_ready(2)
        assert eventually(lambda: any(UNSEEN in message for message in agent.lost)), (agent.lost, agent.log)
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_rules_beside_a_pid_file_that_is_watched(load: Load, tmp_path: Path) -> None:
    """Who reads there is held, but no worker of ours."""
    policy, waits = tmp_path / "policy.toml", tmp_path / "runtime-waits"
    policy.write_text('[[rule]]\nname = "all"\nmatch = "true"\naction = "audit"\n')
    hook = tmp_path / "hook" / "wait"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\nwhile test -e {waits}; do sleep 0.1; done\n")
    hook.chmod(0o755)
    config = {"hooks": {"createRuntime": [{"path": str(hook)}]}}
    bundle = make_bundle(tmp_path / "waiting", ["/bin/true"], config=config)
    name = f"{load.prefix}-waiting"
    with running("--policy", str(policy)) as agent:
        waits.touch()
        command = ["create", "-b", str(bundle), "--pid-file", str(tmp_path / "pid"), name]
        creating = threading.Thread(target=load.runtime, args=command, kwargs={"detached": True})
        creating.start()
        assert eventually(lambda: agent.types(name) == ["creating"])
        agent.signal_worker(signal.SIGKILL)
        agent.wait_ready(2)
        waits.unlink()
        creating.join()
        load.runtime("delete", "-f", name)
        assert eventually(lambda: agent.types(name)[-1:] == ["stopped"])
        assert not agent.lost
        assert agent.stop() == 0
