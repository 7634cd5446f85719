"""Starting the keeper: for this program alone, or as the daemon that this process becomes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from startgate.errors import KernelUnsupported
from startgate.keeper import channel
from startgate.keeper.keeper import Keeper
from startgate.kernel import spawn
from startgate.kernel.fanotify import Group

HANG_LIMIT = 2.0
"""Seconds after which a program that embeds a watcher, and is silent, is not asked any more."""

CONTROL = "STARTGATE_CONTROL"
"""The environment variable that tells a daemon's worker the number of its socket to the guard."""


def binary() -> str:
    """Return the path of the keeper's program. Raises KernelUnsupported where it was not built."""
    path = Path(__file__).parent.parent / "_native" / f"startgate-keeper.{os.uname().machine}"
    if not path.exists():
        raise KernelUnsupported(f"{path.name}, which holds tasks, was not built (make keeper)")
    return str(path)


def for_this_program(
    commands: Group, containers: Group, records: Mapping[str, int], *, hold_timeout: float
) -> Keeper:
    """Start a keeper that ends with this program; the groups are its from now on.

    `records` are the fds of `ExecRecordSource.keeper_fds`. Raises KernelUnsupported.
    """
    ours, theirs = channel.pair()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    given = {
        "commands": commands.fileno(),
        "containers": containers.fileno(),
        "control": theirs,
        **records,
    }
    numbers = {name: number for number, name in enumerate(given, 3)}
    command = [
        binary(),
        *_options(numbers, hold_timeout, HANG_LIMIT),
        "--program",
        str(os.getpid()),
    ]
    try:
        child = spawn.start(command, {}, [null, null, _stderr(null), *given.values()])
        with suppress(ChildProcessError):  # our SIGCHLD is ignored
            os.waitpid(child, 0)  # it has left a process of its own
    except OSError as error:
        ours.close()
        raise KernelUnsupported(f"the keeper can't be started: {error.strerror}") from error
    finally:
        os.close(null)
        os.close(theirs)
        commands.abandon()
        containers.abandon()
    keeper = Keeper(ours)
    for group in (keeper.commands, keeper.containers):
        group.own(os.getpid())
    return keeper


def _stderr(null: int) -> int:
    try:
        os.fstat(2)
    except OSError:  # this program has closed its
        return null
    return 2


def become_daemon(
    fds: Mapping[str, int],
    records: Mapping[str, int],
    worker: Sequence[str],
    kept: Sequence[int],
    *,
    hold_timeout: float,
    hang_limit: float,
    absent_denies: bool,
) -> NoReturn:
    """Replace this process by the keeper, which starts `worker`, a command line, with the fds `kept`.

    `fds` are the groups, ``commands`` and ``containers``. Raises OSError, KernelUnsupported.
    """
    given = {**fds, **records}
    for fd in (*given.values(), *kept):
        os.set_inheritable(fd, True)
    command = [
        binary(),
        *_options(given, hold_timeout, hang_limit),
        *(["--absent-denies"] if absent_denies else []),
        "--worker",
        ",".join(map(str, kept)),
        *worker,
    ]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606


def inherited() -> Keeper:
    """Return the keeper of the daemon whose worker this process is. Raises KernelUnsupported."""
    return Keeper(channel.Channel(int(os.environ.pop(CONTROL))))


def _options(fds: Mapping[str, int], hold_timeout: float, hang_limit: float) -> list[str]:
    options = [word for name, fd in fds.items() for word in (f"--{name}", str(fd))]
    times = {"--hold": hold_timeout, "--hang": hang_limit}
    return options + [word for name, time in times.items() for word in (name, str(max(1, int(time * 1000))))]
