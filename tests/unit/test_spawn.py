from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from startgate.kernel import spawn


def start(command: list[str], environment: dict[str, str] | None = None, *more: int) -> tuple[bytes, int]:
    """Run a program; return what it printed, and its wait status."""
    with open(os.devnull, "rb") as nothing:
        reader, writer = os.pipe()
        pid = spawn.start(command, environment or {}, [nothing.fileno(), writer, writer, *more])
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            printed = file.read()
    return printed, os.waitpid(pid, 0)[1]


def test_its_words_and_variables() -> None:
    printed, status = start(["/bin/sh", "-c", 'echo "$0 $1 $X"; exit 3', "a b", "c"], {"X": "é"})
    assert printed.decode() == "a b c é\n" and os.waitstatus_to_exitcode(status) == 3


def test_it_leads_a_session_and_is_in_the_root_directory() -> None:
    printed, _ = start([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid(), os.getcwd())"])
    assert printed == b"True /\n"


@contextmanager
def blocked(*numbers: int) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    ignored = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_its_signals_are_the_default_ones() -> None:
    with blocked(signal.SIGTERM, signal.SIGINT):
        printed, _ = start(["/bin/cat", "/proc/self/status"])
    masks = dict(line.split(":\t", 1) for line in printed.decode().splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & 0x7FFF_FFFF == 0  # above are glibc's own


def test_its_fds_are_those_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("fourth")
    with open(tmp_path / "file") as file, open(tmp_path / "file") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))), os.read(3, 9))"
        printed, _ = start([sys.executable, "-c", script], None, file.fileno())
    assert printed == b"[0, 1, 2, 3, 4] b'fourth'\n"  # 4: the listing itself


@pytest.mark.parametrize(
    ("path", "error"),
    [("/nope", FileNotFoundError), ("/etc/passwd", PermissionError), ("/etc", PermissionError)],
)
def test_what_can_not_be_executed(path: str, error: type[OSError]) -> None:
    with pytest.raises(error) as caught:
        spawn.start([path], {}, [0, 1, 2])
    assert caught.value.filename == path


def test_low_fds_may_be_free() -> None:
    """A daemon's files may get the numbers 0 to 2, which the child's files are put at."""
    program = (
        "import os, json\nfrom startgate.kernel import spawn\n"
        "keep = os.dup(1); [os.close(fd) for fd in (0, 1, 2)]\n"
        "files = [os.open('/dev/null', os.O_RDWR | os.O_CLOEXEC) for _ in range(2)]\n"
        "pid = spawn.start(['/bin/sh', '-c', 'echo out; echo err >&2'], {}, [files[1], keep, keep])\n"
        "os.waitpid(pid, 0); os.write(keep, json.dumps(files).encode())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.stdout == b"out\nerr\n" + json.dumps([0, 1]).encode()
