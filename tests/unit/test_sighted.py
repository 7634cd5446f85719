from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.runtimes import sighted
from startgate.runtimes.commandline import Command


def words(line: str) -> list[bytes]:
    return [word.encode() for word in line.split()]


@pytest.mark.parametrize(
    ("line", "command", "bundle"),
    [
        ("runc run --bundle /b id", Command.RUN, "/b"),
        ("x run id", Command.RUN, None),
        ("x --root /r --log-format json create --bundle /b --pid-file /p id", Command.CREATE, "/b"),
        ("x --root=/r --systemd-cgroup create -b /b id", Command.CREATE, "/b"),
        ("x --newer=option --newest run -b /b id", Command.RUN, "/b"),
        ("x --root run run -b /b id", Command.RUN, "/b"),
        ("x restore --image-path /i id", Command.RESTORE, None),
    ],
)  # fmt: skip
def test_a_start(line: str, command: Command, bundle: str | None) -> None:
    call = sighted.start(words(line))
    assert call and (call.command, call.id, call.bundle) == (command, "id", bundle)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        "x run",
        "x create --help",
        "x exec id sh",
        "x start id",
        "env -i runc run --bundle /b id",  # runc is what it executes: it is seen by itself
        "env --debug runc run --bundle /b id",
        "unshare -m runc run --bundle /b id",
        "nice -n 10 runc create --bundle /b id",
        "strace -f -o /x runc run --bundle /b id",
        "sh /usr/bin/wrapper run --bundle /b id",
        "x --root",
        "x --root run",
        "systemctl start x",
        "git commit run",
    ],
)
def test_what_is_none(line: str) -> None:
    assert sighted.start(words(line)) is None


@given(
    st.lists(
        st.sampled_from([b"run", b"create", b"--root", b"-b", b"--x=y", b"--", b"\xff", b""]), max_size=8
    )
)
def test_anything_may_come(argv: list[bytes]) -> None:
    call = sighted.start(argv)
    assert call is None or (call.command.starts and call.id)
