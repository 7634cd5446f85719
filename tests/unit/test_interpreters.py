"""python-build-standalone, which uv installs, is built with an old C library's headers: it lacks names."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from startgate.kernel import memfd, pidfd

SOURCE = Path(__file__).parents[2] / "src/startgate"
# What python-build-standalone's 3.14 has not, of what Debian's has.
MISSING = re.compile(
    r"\b(os\.(pidfd_open|memfd_create|MFD_\w+|getrandom|GRND_\w+|copy_file_range|P_PIDFD|PIDFD_\w+)"
    r"|signal\.pidfd_send_signal|select\.EPOLLEXCLUSIVE)\b"
)


def code(file: Path) -> str:
    return re.sub(r"#.*", "", file.read_text())


def test_no_such_name_is_used() -> None:
    used = {(file.name, found[0]) for file in SOURCE.rglob("*.py") for found in MISSING.finditer(code(file))}
    assert not used


def test_a_pidfd_is_the_processs_and_no_childs() -> None:
    fd = pidfd.open_process(os.getpid())
    try:
        assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_no_pidfd_of_a_process_that_is_gone() -> None:
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError):
        pidfd.open_process(child)


def test_a_process_is_killed_if_it_is_the_one() -> None:
    child = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
    with pytest.raises(ProcessLookupError):
        pidfd.kill(child, lambda: False)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    pidfd.kill(child, lambda: True)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL)


def test_a_file_in_memory() -> None:
    fd = memfd.create("startgate-test")
    try:
        assert os.write(fd, b"kept") == 4
        assert os.pread(fd, 10, 0) == b"kept"
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:startgate-test")
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
