"""The few words between the supervisor and a worker, and the turn that is passed on by them.

An event is answered by the number of its fd alone, so two processes that read from one group can
answer each other's events. Hence the groups are one process's at a time: a worker asks, the
supervisor gives it the turn and leaves them alone, and has them back when that worker is dead.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from contextlib import suppress

ASKS, READY = 1, 2
"""A worker's words: it would take the groups over now; it holds."""

_LONGEST = 4096  # PIPE_BUF: written whole or not at all


def fds() -> dict[str, int]:
    """Return the fds that both sides need: a worker's words, both ends of what it is told."""
    turn, give = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return {"word": os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "turn": turn, "give": give}


# The supervisor's side


def hear(fds: Mapping[str, int]) -> int:
    """Return the worker's word, 0 where there is none."""
    try:
        return os.eventfd_read(fds["word"])
    except BlockingIOError:
        return 0


def give_turn(fds: Mapping[str, int], gap: str) -> None:
    """Let the worker that asked have the groups; `gap` is what was let go unseen before it."""
    os.write(fds["give"], gap.encode()[: _LONGEST - 1] + b"\n")


def forget(fds: Mapping[str, int]) -> None:
    """Drop what a dead worker said, and what it did not hear."""
    hear(fds)
    with suppress(BlockingIOError):
        os.read(fds["turn"], _LONGEST)


# The worker's side


def take_turn(fds: Mapping[str, int]) -> str:
    """Wait until the groups are ours; return what was let go unseen before us."""
    os.eventfd_write(fds["word"], ASKS)
    select.select([fds["turn"]], [], [])
    return os.read(fds["turn"], _LONGEST).decode(errors="replace").rstrip("\n")


def say_ready(fds: Mapping[str, int]) -> None:
    """From here on the worker is judged by what its reading threads do."""
    os.eventfd_write(fds["word"], READY)
