"""A program that embeds `Watcher`, and comes to harm: the node goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from startgate.keeper.start import HANG_LIMIT
from tests.faults.agent import Teller, pause
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.probe import Probe, probing
from tests.kernel.support import PATIENCE, eventually

pytestmark = pytest.mark.timeout(180)

# Each line of its input is something that it does.
PROGRAM = """
import ctypes, os, signal, subprocess, sys, threading
from startgate import Watcher

def listen():
    for line in sys.stdin:
        exec(line)

with Watcher(existing=False) as watcher:
    watcher.on("created", lambda event: None)
    threading.Thread(target=listen, daemon=True).start()
    print("ready", file=sys.stderr, flush=True)
    for event in watcher:
        sys.stdout.buffer.write(event.to_json() + b"\\n")
        sys.stdout.buffer.flush()
"""
DEADLOCK = "ctypes.PyDLL(None).pause()"
STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
# The child has copies of all that its parent has open, and lives on.
FORK = "os.fork() or signal.pause()"
SUBPROCESS = "subprocess.Popen(['sleep', '1000'], close_fds=False)"


class Program(Teller):
    """The program, and its events."""

    hang_limit = HANG_LIMIT

    def __init__(self) -> None:
        super().__init__()
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["nice", "-n", "-10", sys.executable, "-c", PROGRAM],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        assert self.process.stderr and self.process.stderr.readline() == b"ready\n"
        self._thread = threading.Thread(target=self.collect)
        self._thread.start()

    def do(self, line: str) -> None:
        """Let it execute a line of Python."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._thread.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


@contextmanager
def running() -> Iterator[Program]:
    """Run it for the length of the block."""
    program = Program()
    try:
        yield program
    finally:
        program.end()


def keepers_of(program: int) -> list[int]:
    """Return the keeper's processes that work for a program."""
    words = f"\0--program\0{program}\0".encode()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and words in _command(entry)]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("line", [DEADLOCK, STOP], ids=["deadlocks", "stops"])
def test_silent(line: str, load: Load, tell: Tell, request: pytest.FixtureRequest) -> None:
    """Those that it holds are let go after the hang limit; then nobody is held until it speaks again."""
    with running() as program:
        load.warm_up(program)
        with probing(load.runtime) as probe, load.under_way():
            pause(0.3)
            program.do(line)
            pause(HANG_LIMIT + 0.5)
        told(request, tell, load, program, probe)
        assert not load.failed
        assert load.longest_delay <= program.delay_limit + load.usual
        load.took.clear()
        load.start(4, "after")
        assert load.longest_delay < HANG_LIMIT / 2 + load.usual, "nobody is asked any more"


def told(request: pytest.FixtureRequest, tell: Tell, load: Load, program: Program, probe: Probe) -> None:
    """Put it into the table."""
    what = request.node.callspec.id
    tell(f"a program that embeds Watcher {what}", load, program, note="it watches no more", probe=probe)


def test_continued(load: Load) -> None:
    """A program that was stopped, as by a debugger, and goes on, holds again, and is told what it missed."""
    with running() as program:
        load.warm_up(program)
        os.kill(program.process.pid, signal.SIGSTOP)
        load.start(4, "unseen", 1)
        os.kill(program.process.pid, signal.SIGCONT)
        assert eventually(lambda: any("unseen" in message for message in program.lost)), program.lost
        load.took.clear()
        load.start(4, "after")
        assert not load.wait_told(program) and len(load.held(program)) == 4


@pytest.mark.parametrize("line", [FORK, SUBPROCESS], ids=["forks", "starts a program with all fds"])
def test_a_child_lives_on(line: str, load: Load, tell: Tell, request: pytest.FixtureRequest) -> None:
    """It disturbs nobody while the program lives, and holds nobody when that is gone."""
    with running() as program:
        load.warm_up(program)
        program.do(line)
        load.start(4)
        assert not load.wait_told(program) and len(load.held(program)) == 4
        keepers = keepers_of(program.process.pid)
        assert len(keepers) == 3
        with probing(load.runtime) as probe, load.under_way():
            program.process.kill()
            program.process.wait()
            assert eventually(lambda: not keepers_of(program.process.pid))
            pause(0.3)
        told(request, tell, load, program, probe)
        assert not load.failed
        assert load.longest_delay < HANG_LIMIT + load.usual


def test_killed(load: Load, tell: Tell) -> None:
    """The keeper ends with it, and the kernel lets all go."""
    with running() as program:
        load.warm_up(program)
        with probing(load.runtime) as probe, load.under_way():
            pause(0.3)
            program.process.kill()
            program.process.wait()
            assert eventually(lambda: not keepers_of(program.process.pid))
            pause(0.3)
        note = "it watches no more"
        tell("a program that embeds Watcher is killed", load, program, note=note, probe=probe)
        assert not load.failed
        assert load.longest_delay < HANG_LIMIT + load.usual
