"""The journal, while the worker and the agent are killed: complete, or it says what is not."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.journal.reader import Journal, JournalError
from startgate.journal.report import Report
from startgate.journal.verify import Verifier
from tests.faults.agent import STARTGATE, UNSEEN, Agent, pause, running
from tests.faults.load import Load, assert_nothing_missed
from tests.faults.test_next_worker import none_can_start, trap, trapped  # noqa: F401
from tests.kernel.support import eventually


class Keeping:
    """`startgate agent`, which is killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.spool, self.journal = str(directory / "spool"), str(directory / "journal")
        self._start()

    def _start(self) -> None:
        command = [*STARTGATE, "agent", "--spool", self.spool, "--journal", self.journal]
        self.process = subprocess.Popen(command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._start()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(10)

    def lines(self) -> list[bytes]:
        try:
            with Journal(self.journal) as journal:
                return [row.line for row in journal.events()]
        except JournalError:
            return []

    def verify(self) -> Report:
        return Verifier(self.journal, spool=self.spool).run()


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    found = Keeping(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()


@contextmanager
def killing(agent: Agent, keeping: Keeping) -> Iterator[None]:
    """Kill the worker and the agent, in turn, for the length of the block."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.3):
            keeping.kill()
            starts = agent.starts
            agent.signal_worker(signal.SIGKILL)
            agent.wait_ready(starts + 1)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.timeout(180)
def test_killed_again_and_again(load: Load, keeping: Keeping) -> None:
    """What was printed is in the journal, once, in its order; and nothing is missing."""
    with running("--spool", keeping.spool) as agent:
        load.warm_up(agent, 2)
        with killing(agent, keeping):
            load.start(10)
        assert_nothing_missed(load, agent)
        assert agent.stop() == 0
    printed = {event["sequence"]: event for event in agent.events}  # one may be printed twice
    assert eventually(lambda: len(keeping.lines()) == len(printed))
    assert [json.loads(line) for line in keeping.lines()] == list(printed.values())
    report = keeping.verify()
    assert (report.findings, report.dropped, report.unseen) == ([], 0, 0)
    assert report.executed.start == report.events.start == len(load.took) + 2
    assert keeping.end() == 0


@pytest.mark.timeout(180)
def test_what_nobody_saw_is_counted_and_told(load: Load, keeping: Keeping, trap: Path) -> None:  # noqa: F811
    """BPF counts it, a `lost` event tells of it, and `verify` finds them equal."""
    with running("--spool", keeping.spool, env=trapped(trap, 0)) as agent:
        none_can_start(agent, trap)
        load.start(3, at_once=1)
        (trap / "broken").unlink()
        agent.wait_ready(2)
        assert eventually(lambda: any(UNSEEN in message for message in agent.lost))
        load.start(1, "after")
        pause(0.1)
        assert agent.stop() == 0
    assert eventually(lambda: len(keeping.lines()) == len(agent.events))
    report = keeping.verify()
    assert report.complete and report.unseen == 3 <= report.told
    assert report.executed.start - report.unseen == report.events.start
