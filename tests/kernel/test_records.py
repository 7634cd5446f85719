"""The exec record sources: arguments of any number and size, every kind of execve, no leftovers."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import records
from startgate.errors import KernelUnsupported, NotReadable
from startgate.hold import Hold
from startgate.inherited.resources import Opened
from startgate.keeper.group import KeptGroup
from startgate.keeper.protocol import Held
from startgate.kernel import bpf, features
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM
from startgate.kernel.process import Proc
from startgate.records import ExecRecord, layout, procfs
from tests.kernel.support import PATIENCE, SLOWNESS, Runtime

WORD = b"create"
"""In each command line, so that it is held: the keeper lets go at once what concerns no container."""

Tap = Callable[[Callable[[], object]], list[ExecRecord]]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of our own, to be marked."""
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def tap(source: str, program: Path) -> Iterator[Tap]:
    """Run something that executes the program, and return the records of it."""
    with tapping(source, program) as listen:
        yield listen


@contextmanager
def tapping(source: str, program: Path, expected: Sequence[str] = ()) -> Iterator[Tap]:
    """Give what runs an action, and returns the records of the program's executions."""
    resources = Opened(source).keep(PATIENCE)
    taken, group = resources.source, resources.keeper.commands
    taken.expect(expected or [program.name])
    group.mark(FAN_OPEN_EXEC_PERM, str(program))

    def listen(action: Callable[[], object]) -> list[ExecRecord]:
        errors: list[BaseException] = []
        thread = threading.Thread(target=lambda: _guard(action, errors))
        thread.start()
        found = [_take(group, held) for held in _held_while(thread, group)]
        if errors:
            raise errors[0]
        return [record for record in found if record]

    yield listen
    if bpf := getattr(taken, "bpf", None):
        _assert_nothing_stale(bpf.object)
    resources.close()


def _held_while(thread: threading.Thread, group: KeptGroup) -> Iterator[Held]:
    """Yield what is held until the thread has ended."""
    received: queue.SimpleQueue[Held] = queue.SimpleQueue()

    def receive() -> None:
        while (message := group.receive()) is not None:
            if isinstance(message, Held):
                received.put(message)

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    while thread.is_alive() or not received.empty():
        with suppress(queue.Empty):
            yield received.get(timeout=0.05)
    thread.join()
    group.close()
    receiver.join()


def _guard(action: Callable[[], object], errors: list[BaseException]) -> None:
    try:
        action()
    except BaseException as error:
        errors.append(error)


def _take(group: KeptGroup, held: Held) -> ExecRecord | None:
    """Return the whole record, without the word that it was held for; None: the task was killed."""
    with Hold(group, held):
        try:
            proc = Proc()
            known = layout.decode(held.record) if held.record else None
            record = procfs.complete(proc, known or procfs.identify(proc, held.pid))
        except NotReadable:
            return None
    assert record.arguments[-1] == WORD
    return replace(record, arguments=record.arguments[:-1])


def _assert_nothing_stale(bpf_object: Any) -> None:
    """Our own execs are over; others' come and go, but none stays."""
    table = bpf_object.map("exec_args")
    # One record was pushed for each event that was read, and popped: none is left over.
    assert bpf_object.map("ig_fa_records").pop() is None
    assert bpf_object.map("ig_fa_pick_ctx").keys() == []
    first = set(table.keys())
    stale = {tid for tid in first if not os.path.exists(f"/proc/{tid}")}
    assert not stale & set(table.keys())


def _run(*argv: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(os.fsencode, argv), WORD], check=True, timeout=PATIENCE)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 127, 128, 129, 2000])
def test_any_number_of_arguments(count: int, tap: Tap, program: Path) -> None:
    arguments = [f"argument-{number}" for number in range(count)]
    found = tap(lambda: _run(str(program), *arguments))
    assert [a.decode() for a in found[0].arguments] == [str(program), *arguments]
    assert found[0].complete and found[0].trusted


@pytest.mark.parametrize("size", [0, 1, 2046, 2047, 2048, 4095, 4096, 8191, 8192, 100_000])
def test_any_size_of_argument(size: int, tap: Tap, program: Path) -> None:
    found = tap(lambda: _run(str(program), "x" * size, "last"))
    assert [len(a) for a in found[0].arguments] == [len(str(program)), size, 4]


def test_8_kib_in_many_arguments(tap: Tap, program: Path) -> None:
    arguments = ["y" * 100] * 90
    found = tap(lambda: _run(str(program), *arguments))
    assert found[0].arguments[1:] == [b"y" * 100] * 90


def test_bytes_that_are_no_text(tap: Tap, program: Path) -> None:
    found = tap(lambda: _run(str(program).encode(), b"\xff\xfe", b"", b"\n"))
    assert found[0].arguments[1:] == [b"\xff\xfe", b"", b"\n"]


_FROM_A_THREAD = """
import os, sys, threading
threading.Thread(target=lambda: os.execv(sys.argv[1], sys.argv[1:])).start()
"""


def test_an_execve_of_another_thread_than_the_first(tap: Tap, program: Path) -> None:
    found = tap(lambda: _run(sys.executable, "-c", _FROM_A_THREAD, str(program), "from a thread"))
    assert found[0].arguments == [str(program).encode(), b"from a thread"]
    assert found[0].tid != found[0].tgid


def test_names_that_are_not_expected(source: str, tmp_path: Path) -> None:
    """They are not recorded, and are read from the held task: nothing is missed."""
    names = ["other", "program-" + "x" * 40, "-", "programs", "rogram", "program"]
    for name in names:
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
        with tapping(source, tmp_path / name, expected=["program"]) as tap:
            found = tap(partial(_run, str(tmp_path / name), "argument"))
        assert found[0].arguments == [str(tmp_path / name).encode(), b"argument"]
        assert found[0].trusted


def _recorded(source: str, program: Path, run: Callable[[], object], expected: str) -> list[bool]:
    """Was each execution of the program recorded by BPF?"""
    resources = Opened(source).keep(PATIENCE)
    group = resources.keeper.commands
    resources.source.expect([expected])
    group.mark(FAN_OPEN_EXEC_PERM, str(program))
    thread = threading.Thread(target=run)
    thread.start()
    recorded = []
    for held in _held_while(thread, group):
        with Hold(group, held):
            recorded.append(bool(held.record))
    resources.close()
    return recorded


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("program", True),
        ("./deep/../program", True),
        ("x" * 26 + "/" + "y" * 5, False),
        ("d" * 200 + "/" + "e" * 200 + "/program", True),  # too long to be looked at
        ("programs", False),
        ("link", False),
    ],
)
def test_what_is_recorded(source: str, path: str, recorded: bool, program: Path, tmp_path: Path) -> None:
    other = tmp_path / path
    other.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "deep").mkdir(exist_ok=True)
    if path == "link":
        other.symlink_to(program)
    elif not other.exists():
        shutil.copy(program, other)
    expected = recorded and source != "procfs"
    assert _recorded(source, other, lambda: _run(f"{tmp_path}/{path}"), "program") == [expected]


def test_execveat(tap: Tap, program: Path) -> None:
    script = "import os, sys; os.execve(os.open(sys.argv[1], os.O_RDONLY), sys.argv[1:], {})"
    command = [sys.executable, "-c", script, str(program), "at", "create"]
    found = tap(lambda: subprocess.run(command, check=False, capture_output=True))
    assert found[0].arguments == [str(program).encode(), b"at"]


def test_an_execve_that_fails(tap: Tap, program: Path) -> None:
    """Held, let go, and then refused by the kernel: not an executable format."""
    program.write_bytes(b"\x7fELF junk")
    script = "import os, sys\ntry: os.execv(sys.argv[1], sys.argv[1:])\nexcept OSError: pass"
    found = tap(lambda: _run(sys.executable, "-c", script, str(program), "fails"))
    assert found[0].arguments == [str(program).encode(), b"fails"]


_SECCOMP = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 59, "aarch64": 221}[os.uname().machine]
code = b"".join(struct.pack("=HBBI", *i) for i in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0
try: os.execv(sys.argv[1], sys.argv[1:])
except PermissionError: sys.exit(0)
sys.exit(1)
"""


def test_an_execve_stopped_by_seccomp(tap: Tap, program: Path) -> None:
    assert tap(lambda: _run(sys.executable, "-c", _SECCOMP, str(program), "never")) == []


def test_a_task_killed_in_its_execve(tap: Tap, program: Path, source: str) -> None:
    """Many are killed at any moment; those that were held are told, none stays recorded."""

    def kill_them() -> None:
        for _ in range(30):
            process = subprocess.Popen(["/bin/sh", "-c", f"exec {program} create"])
            process.kill()
            process.wait()

    tap(kill_them)


UNRELATED = 2000


def _kill_nobody(binary: Path, number: int) -> None:
    """A runtime command that is held, and does nothing: there is no such container."""
    command = [str(binary), "--root", f"/none/{number}", "kill", "create"]
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=PATIENCE)


def test_in_step_under_load(
    source: str, runc: Runtime, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """200 runc commands, 16 at a time, again and again beside 2000 unrelated execs; once in a VM."""
    binary = tmp_path / "runc"
    shutil.copy(runc.prefix[-1], binary)
    loop = f"n=0; while [ $n -lt {UNRELATED // 2} ]; do /bin/true; n=$((n+1)); done"
    started: list[int] = []

    def load() -> None:
        noise = [subprocess.Popen(["/bin/sh", "-c", loop]) for _ in range(2)]
        with ThreadPoolExecutor(16) as pool:
            # Emulated, one CPU has enough to do with 200.
            while not started or (SLOWNESS <= 1 and any(p.poll() is None for p in noise)):
                wave = range(len(started), len(started) + 200)
                started.extend(wave)
                list(pool.map(lambda n: _kill_nobody(binary, n), wave))
        for process in noise:
            process.wait()

    began = time.monotonic()
    with tapping(source, binary) as tap:
        found = tap(load)
    took = time.monotonic() - began
    told = f"{len(found)} records of {len(started)} commands, {UNRELATED} other execs, {took:.1f} s"
    record_property("load", told)
    print(f"{source}: {told}")
    assert sorted(int(r.arguments[2].split(b"/")[2]) for r in found) == started


def test_callers_that_are_not_root_are_told_apart(tap: Tap, program: Path, tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    found = tap(lambda: subprocess.run([program, "user", "create"], user=1000, check=True))
    assert [r.trusted for r in found] == [False]


def test_the_event_thread_is_found_in_the_group(source: str, program: Path) -> None:
    """The look-up of the host's thread id, as a child pid namespace needs it."""
    group = features.open_group(report_tid=True)
    taken = records.choose(source, group)
    try:
        if not hasattr(taken, "bpf"):
            pytest.skip("procfs knows no other pid namespace")
        with features.held_exec(group) as event:
            run: Callable[..., int] = taken.bpf.object["pending_tid"].run
            assert run(group.fileno(), event.fd) == event.pid
            assert run(group.fileno(), event.fd + 1000) == 0
            assert run(0, event.fd) == 0
            assert run(99999, event.fd) == 0
    finally:
        taken.close()
        group.close()


def test_a_verifier_rejection_shows_its_log(tmp_path: Path) -> None:
    source, output = tmp_path / "bad.c", tmp_path / "bad.o"
    source.write_text(
        'char LICENSE[] __attribute__((section("license"))) = "GPL";\n'
        '__attribute__((section("tracepoint/sched/sched_process_exec"))) int bad(long *ctx)\n'
        "{ long *nowhere = (long *)ctx[1]; return *nowhere; }\n"
    )
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", output], check=True)
    with pytest.raises(KernelUnsupported, match="refused the BPF programs") as caught:
        bpf.Object(output, ["bad"])
    assert "invalid mem access" in caught.value.details
