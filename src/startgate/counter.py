"""What BPF counts of the executions of runtimes, as events tell it."""

from __future__ import annotations

import msgspec


class Executions(msgspec.Struct, frozen=True):
    """Executions of runtimes: `start`: `create`, `run` and `restore`."""

    start: int = 0
    exec: int = 0


class Counter(msgspec.Struct, frozen=True):
    """Executions of watched runtimes by root, as BPF counts them at the end of each execve.

    It knows nothing of gates: `unseen` are those of `executed` that no gate has asked about. All are
    sums since the daemon began to count, at `since`.
    """

    since: str
    executed: Executions
    unseen: Executions
