"""The turnstile: who needs no hold is let go without any Python; nothing else is."""

from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from startgate.inherited.resources import Resources
from startgate.kernel.fanotify import FAN_ALLOW, FAN_OPEN_EXEC_PERM, Event
from startgate.kernel.turnstile import Turnstile, Words
from startgate.records.table import Table
from tests.kernel.support import PATIENCE, eventually

WORDS = Words((b"create", b"start"), (b"delete",))
SMALL = 4 * mmap.PAGESIZE  # room for four packets


class Gate:
    """A marked program, and a turnstile that nobody else reads."""

    def __init__(self, directory: Path, resources: Resources) -> None:
        self.resources = resources
        self.group = resources.commands
        self.table = resources.source.table()
        assert self.table is not None
        self.program = directory / "runtime"
        shutil.copy("/bin/true", self.program)
        self.group.mark(FAN_OPEN_EXEC_PERM, str(self.program))
        resources.source.expect(["runtime"])
        self.running: list[subprocess.Popen[bytes]] = []

    def turnstile(self, room: int = 1 << 20) -> Turnstile:
        assert self.table is not None
        return Turnstile(self.group, self.table, WORDS, self.resources.progress.turnstile(), room=room)

    def execute(self, *arguments: str) -> subprocess.Popen[bytes]:
        words = [f'exec {self.program} "$@"', "sh", *arguments]
        self.running.append(subprocess.Popen(["sh", "-c", *words]))
        return self.running[-1]

    def next(self, turnstile: Turnstile) -> Event:
        assert select.select([turnstile], [], [], PATIENCE)[0], "nothing was passed on"
        event = turnstile.read()
        assert event is not None
        return event

    def allow(self, event: Event) -> None:
        self.group.answer(event.fd, FAN_ALLOW)
        os.close(event.fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with closing(Resources.open("table")) as resources:
        gate = Gate(tmp_path, resources)
        yield gate
    for process in gate.running:
        process.wait(PATIENCE)


def arguments_of(event: Event, gate: Gate) -> list[bytes]:
    record = gate.resources.source.take(event)
    assert record and record.trusted and record.complete
    return record.arguments[1:]


def test_without_a_word_it_is_let_go(gate: Gate) -> None:
    with closing(gate.turnstile()) as turnstile:
        for arguments in ((), ("--version",), ("", "", "creat"), ("created", "--create"), ("x" * 900,)):
            assert gate.execute(*arguments).wait(PATIENCE) == 0
        assert turnstile.read() is None
        assert gate.resources.progress.snapshot().held == 0


def test_some_words_matter_only_while_a_container_is_not_settled(gate: Gate) -> None:
    with closing(gate.turnstile()) as turnstile:
        assert gate.execute("delete", "x").wait(PATIENCE) == 0
        roots, users = gate.resources.progress.unsettled(), gate.resources.progress.unsettled()
        roots(2)
        users(1)
        roots(0)
        gate.execute("delete", "x")
        gate.allow(gate.next(turnstile))
        users(0)
        assert gate.execute("delete", "x").wait(PATIENCE) == 0


def test_with_a_word_it_is_passed_on_with_its_record(gate: Gate) -> None:
    with closing(gate.turnstile()) as turnstile:
        process = gate.execute("--root", "/r", "create", "", "id")
        event = gate.next(turnstile)
        assert arguments_of(event, gate) == [b"--root", b"/r", b"create", b"", b"id"]
        assert os.readlink(f"/proc/self/fd/{event.fd}") == str(gate.program)
        assert gate.resources.progress.snapshot().held == 1
        assert gate.resources.progress.top >= event.fd
        assert process.poll() is None
        gate.allow(event)
        assert process.wait(PATIENCE) == 0
        assert gate.resources.progress.snapshot().held == 0


@pytest.mark.parametrize("arguments", [["y" * 1500], ["z"] * 200], ids=["long", "many"])
def test_what_a_record_does_not_hold_is_passed_on(gate: Gate, arguments: list[str]) -> None:
    """The word may be in what was cut off."""
    with closing(gate.turnstile()) as turnstile:
        process = gate.execute(*arguments)
        event = gate.next(turnstile)
        record = gate.resources.source.take(event)
        assert record and not record.complete
        assert process.poll() is None
        gate.allow(event)


def test_what_is_not_known_is_passed_on(gate: Gate) -> None:
    """It was executed by a name that BPF does not record."""
    other = gate.program.with_name("other")
    os.link(gate.program, other)
    with closing(gate.turnstile()) as turnstile:
        gate.running.append(subprocess.Popen(["sh", "-c", f"exec {other} --version"]))
        event = gate.next(turnstile)
        assert event.record == b"" and gate.resources.source.take(event) is None
        gate.allow(event)


def test_while_the_pipe_is_full_events_wait_in_the_group(gate: Gate) -> None:
    count = 12
    with closing(gate.turnstile(SMALL)) as turnstile:
        for number in range(count):
            gate.execute("start", str(number))
        assert eventually(lambda: gate.resources.progress.snapshot().held == 5), "four, and one that is kept"
        assert eventually(lambda: gate.group.unread() == count - 5)
        seen: list[bytes] = []
        while len(seen) < count:
            event = gate.next(turnstile)
            seen.append(arguments_of(event, gate)[1])
            gate.allow(event)
        assert sorted(seen, key=int) == [b"%d" % number for number in range(count)]
        assert gate.execute("--version").wait(PATIENCE) == 0


def test_it_moves_when_it_is_asked_to(gate: Gate) -> None:
    progress = gate.resources.progress
    with closing(gate.turnstile()):
        for _ in range(3):
            before = progress.snapshot().turns[-1]
            assert before > 0
            os.eventfd_write(progress.ping, 1)
            assert eventually(lambda before=before: progress.snapshot().turns[-1] > before)  # type: ignore[misc]


def test_its_end_lets_go_what_nobody_took(gate: Gate) -> None:
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    turnstile = gate.turnstile(SMALL)
    for number in range(9):
        gate.execute("start", str(number))
    assert eventually(lambda: gate.group.unread() == 4)
    turnstile.close()
    turnstile.close()
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
    assert gate.group.unread() == 4, "those wait for the next who reads the group"
    gate.group.close()
    for process in gate.running:
        assert process.wait(PATIENCE) == 0


def test_who_is_killed_while_held_harms_nobody(gate: Gate) -> None:
    with closing(gate.turnstile()) as turnstile:
        process = gate.execute("start", "x")
        event = gate.next(turnstile)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        gate.allow(event)  # the kernel keeps an event that was read until it is answered
        assert gate.execute("--version").wait(PATIENCE) == 0


CLOCK_NANOSLEEP = ("230", "115")  # x86_64, aarch64

GREEDY = """
import ctypes, os, sys, time
from startgate import Watcher

with Watcher(runtimes=[sys.argv[1]]):
    print("ready", flush=True)
    ctypes.PyDLL(None).sleep(3)  # a call into C that keeps Python's lock
"""


def test_python_may_hang(tmp_path: Path) -> None:
    program = tmp_path / "runtime"
    shutil.copy("/bin/true", program)
    command = [sys.executable, "-c", GREEDY, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as greedy:
        assert greedy.stdout and greedy.stdout.readline() == b"ready\n"
        in_c = Path(f"/proc/{greedy.pid}/syscall")
        assert eventually(lambda: in_c.read_text().split()[0] in CLOCK_NANOSLEEP), "sleep(3) was not called"
        began = time.monotonic()
        subprocess.run(["sh", "-c", f"exec {program} --version"], check=True)
        assert time.monotonic() - began < 1.5
        assert greedy.wait(PATIENCE) == 0


def test_the_other_sources_do_without(gate: Gate) -> None:
    """`table` itself does, in a child pid namespace: events have other thread ids there."""
    assert isinstance(gate.resources.source, Table)
    gate.resources.source.bpf.sees_host_pids = False
    assert gate.resources.source.table() is None
