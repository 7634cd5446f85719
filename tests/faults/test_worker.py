"""The worker dies, stops, hangs: its supervisor replaces it, and nothing is missed."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.faults.agent import Agent, pace, pause, running
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.kernel.support import PATIENCE, eventually

# Python runs this in each process that starts with its directory on PYTHONPATH.
GIL_TRAP = """
import os, sys
if "startgate.agent.worker" in sys.orig_argv:
    import ctypes, threading, time

    def trap():
        while True:
            time.sleep(0.05)
            try:
                os.unlink(os.environ["GIL_TRAP"])
            except FileNotFoundError:
                continue
            ctypes.PyDLL(None).pause()  # a C call that keeps the GIL, for ever

    threading.Thread(target=trap, daemon=True).start()
"""

# A worker that starts while there is a file `broken` ends. While there is `slow`, it sleeps before it
# can ask for the groups; while there is `stuck`, when it has them but has not said that it is ready.
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

    from startgate.watcher import Watcher

    mark = Watcher._mark
    Watcher._mark = lambda *arguments: (spring("stuck"), mark(*arguments))
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
    return {"PYTHONPATH": str(trap), "START_TRAP": str(trap), "START_SLEEP": str(sleep)}


def lost_of(agent: Agent) -> list[str]:
    return [event["reason"]["message"] for event in list(agent.events) if event["type"] == "lost"]


ABSENT = "no worker was ready: what waited was let go unseen"


def assert_nothing_missed(load: Load, agent: Agent) -> None:
    assert not load.failed, load.failed
    assert not load.wait_told(agent), (
        [agent.of(c) for c in load.untold(agent)][:4],
        agent.log,
    )
    not_held = set(load.took) - set(load.held(agent))
    assert not not_held, [(c, agent.of(c)) for c in not_held]
    assert load.longest_delay <= agent.hang_limit * 1.5 + load.usual, load.longest_delay


@pytest.mark.timeout(300)
def test_killed_at_random_moments(load: Load, tell: Tell) -> None:
    dice = random.Random(7)
    done = threading.Event()
    with running() as agent:
        load.warm_up(agent)

        def kill() -> None:
            for times in itertools.count(1):
                agent.wait_ready(times)
                if done.wait(dice.uniform(0.1, 1.5)):
                    return
                agent.signal_worker(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        load.start(300)
        done.set()
        killer.join()
        load.wait_told(agent)
        tell("worker killed, again and again (SIGKILL)", load, agent, note=f"{agent.starts - 1} times")
        assert agent.starts > 3, agent.log
        assert_nothing_missed(load, agent)
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_stopped(load: Load, tell: Tell) -> None:
    with running() as agent:
        load.warm_up(agent)
        with load.under_way():
            for times in range(1, 4):
                pause(0.7)
                agent.signal_worker(signal.SIGSTOP)
                agent.wait_ready(times + 1)
            pause(0.5)
        load.wait_told(agent)
        tell("worker stopped (SIGSTOP)", load, agent, note=f"{agent.starts - 1} times")
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_a_deadlocked_interpreter(load: Load, tell: Tell, tmp_path: Path) -> None:
    place = tmp_path / "python"  # not beside the pid files: what is read there is held
    place.mkdir()
    (place / "sitecustomize.py").write_text(GIL_TRAP)
    trigger = place / "trigger"
    with running(env={"PYTHONPATH": str(place), "GIL_TRAP": str(trigger)}) as agent:
        load.warm_up(agent)
        with load.under_way():
            pause(0.5)
            trigger.touch()
            agent.wait_ready(2)
            pause(0.5)
        load.wait_told(agent)
        tell("interpreter deadlocked (a C call keeps the GIL)", load, agent)
        assert_nothing_missed(load, agent)


def test_an_idle_worker_may_be_silent(load: Load) -> None:
    """Nothing is held: whether the worker could answer is nobody's concern, nor anyone's wake-up."""
    with running() as agent:
        worker = agent.worker
        os.kill(worker, signal.SIGSTOP)
        pause(agent.hang_limit * 1.5)
        assert agent.worker == worker
        wakeups = _switches(agent.process.pid)
        pause(1)
        assert _switches(agent.process.pid) == wakeups
        load.start(1)
        assert agent.starts == 2
        assert_nothing_missed(load, agent)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def _switches(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


@pytest.mark.timeout(180)
def test_the_supervisor_is_killed(load: Load, tell: Tell) -> None:
    """The kernel lets all go; the init system starts another one."""
    with ExitStack() as started:
        first = started.enter_context(running())
        load.warm_up(first)
        with load.under_way():
            pause(1)
            worker = first.worker
            first.process.kill()
            first.process.wait()
            assert eventually(lambda: _is_gone(worker))
            second = started.enter_context(running())
            pause(1)
        load.start(1, "last")
        load.wait_told(second, 1)
        assert second.types(f"{load.prefix}-last0") == ["creating", "created", "stopped"]
        second.events[:0] = first.events
        tell("supervisor killed (SIGKILL), started again", load, second, note="nobody watches in between")
        assert not load.failed
        assert load.longest_delay < second.hang_limit


@pytest.mark.timeout(180)
def test_upgraded(load: Load, tell: Tell) -> None:
    with running() as agent:
        load.warm_up(agent)
        with load.under_way():
            for times in range(1, 4):
                pause(0.7)
                os.kill(agent.process.pid, signal.SIGUSR2)
                agent.wait_ready(times + 1)
            pause(0.5)
        load.wait_told(agent)
        tell("upgraded while it runs (SIGUSR2)", load, agent, note=f"{agent.starts - 1} times")
        assert_nothing_missed(load, agent)
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_signals_that_come_while_it_is_executed(load: Load) -> None:
    """The supervisor executes itself anew: a signal then must not kill it."""
    with running() as agent:
        load.warm_up(agent)
        for number in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
            os.kill(agent.process.pid, number)
            pause(0.03)
        load.start(3)
        assert_nothing_missed(load, agent)
        assert agent.process.poll() is None
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_a_worker_does_not_die_of_its_output(load: Load) -> None:
    """Rules and hooks matter more than who reads of them."""
    with running(limits=("sh", "-c", 'exec "$@" >/dev/full', "sh")) as agent:
        worker = agent.worker
        load.start(3)
        assert not load.failed
        assert eventually(lambda: sum("can't be printed" in line for line in list(agent.log)) >= 3)
        assert (agent.starts, agent.worker) == (1, worker)
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_no_worker_can_start(load: Load, trap: Path) -> None:
    """Nobody waits for one, and the first that can tells what was let go unseen."""
    with running(env=trapped(trap, 0)) as agent:
        (trap / "broken").touch()
        agent.signal_worker(signal.SIGKILL)
        assert eventually(lambda: any("no worker was ready" in line for line in list(agent.log)))
        load.start(3)
        assert not load.failed
        assert load.longest_delay < agent.hang_limit
        (trap / "broken").unlink()
        agent.wait_ready(2)
        assert eventually(lambda: lost_of(agent) == [ABSENT])
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
        assert not lost_of(agent)
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
        (trap / "slow").touch()
        agent.signal_worker(signal.SIGKILL)
        assert eventually(lambda: agent.worker and not (trap / "slow").exists())
        slow = agent.worker
        load.start(2, "waits", at_once=2)
        assert load.longest_delay <= agent.hang_limit * 1.5 + load.usual
        load.took.clear()
        load.start(3, "unseen", at_once=1)
        assert load.longest_delay < agent.hang_limit / 2, "nobody is held any more"
        load.took.clear()
        agent.wait_ready(2)
        assert agent.worker == slow
        assert eventually(lambda: lost_of(agent) == [ABSENT]), agent.log
        load.start(2, "after")
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_a_worker_that_takes_the_groups_and_is_never_ready(load: Load, trap: Path) -> None:
    """Its events are its own as long as it lives: so it does not, and the supervisor lets them go."""
    with running(env=trapped(trap, 60)) as agent:
        load.warm_up(agent)
        (trap / "stuck").touch()
        agent.signal_worker(signal.SIGKILL)
        assert eventually(lambda: agent.worker and not (trap / "stuck").exists())
        stuck = agent.worker
        with load.under_way():
            agent.wait_ready(2)
        assert agent.worker != stuck
        assert sum("killed: it was not ready in time" in line for line in agent.log) == 1, agent.log
        assert not load.failed
        assert load.longest_delay <= agent.hang_limit * 1.5 + load.usual
        assert eventually(lambda: lost_of(agent) == [ABSENT]), agent.log
        load.took.clear()
        load.start(2, "after")
        assert_nothing_missed(load, agent)


@pytest.mark.timeout(180)
def test_upgraded_while_no_worker_can_start(load: Load, trap: Path) -> None:
    """The new supervisor goes on where it was: nobody is held anew, and it does not end."""
    with running(env=trapped(trap, 0)) as agent:
        load.warm_up(agent)
        (trap / "broken").touch()
        agent.signal_worker(signal.SIGKILL)
        assert eventually(lambda: ABSENT in "".join(list(agent.log)))
        os.kill(agent.process.pid, signal.SIGUSR2)
        pause(agent.hang_limit * 0.1)
        load.start(3)
        assert not load.failed
        assert load.longest_delay < agent.hang_limit, "nobody is held anew"
        assert agent.process.poll() is None
        (trap / "broken").unlink()
        agent.wait_ready(2)
        assert eventually(lambda: lost_of(agent) == [ABSENT]), agent.log
        assert agent.stop() == 0


@pytest.mark.timeout(180)
def test_rules_beside_a_pid_file_that_is_watched(load: Load, tmp_path: Path) -> None:
    """Who reads there is held: the next worker too, until its supervisor lets it go."""
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
        assert lost_of(agent) == [ABSENT]
        waits.unlink()
        creating.join()
        load.runtime("delete", "-f", name)
        assert eventually(lambda: agent.types(name)[-1:] == ["stopped"])
        assert agent.stop() == 0


@pytest.mark.parametrize("first", [True, False], ids=["the first", "the next"])
def test_a_worker_that_stops_while_it_holds_one_task(tmp_path: Path, first: bool) -> None:
    """And nothing else happens: the supervisor must know of that hold."""
    program = tmp_path / "runtime"
    shutil.copy("/bin/true", program)
    options = ("--runtime", str(program), "--hook", "creating=sleep 1.5", "--hold-timeout", "4")
    with running(*options) as agent:
        if not first:
            agent.signal_worker(signal.SIGKILL)
            agent.wait_ready(2)
        pause(1)
        with subprocess.Popen(["sh", "-c", f"exec {program} create x"]) as held:
            pause(0.7)
            agent.signal_worker(signal.SIGSTOP)
            assert held.wait(PATIENCE) == 0
        assert any("was killed" in line for line in agent.log), agent.log
