"""Tells the end of processes, on one thread that sleeps until there is one."""

from __future__ import annotations

from startgate.errors import KernelUnsupported
from startgate.exits.following import DELAY, Ended, EndRing, ExitMemory, Exits, KillRing, OomKill, Watch
from startgate.exits.joins import ExecOutcome, Joins
from startgate.exits.pidfd import PidfdExits
from startgate.exits.ring import RingExits
from startgate.kernel import features
from startgate.kernel.process import Proc

__all__ = [
    "DELAY",
    "EndRing",
    "Ended",
    "ExecOutcome",
    "ExitMemory",
    "Exits",
    "Joins",
    "KillRing",
    "OomKill",
    "PidfdExits",
    "RingExits",
    "Watch",
    "exits_for",
]


def exits_for(proc: Proc, memory: ExitMemory | None) -> Exits:
    """Return what can follow the host's processes from here.

    Raises KernelUnsupported in a child pid namespace without BPF.
    """
    if features.in_initial_pid_namespace():
        return PidfdExits(proc, memory)
    if memory is None:
        raise KernelUnsupported("in a child pid namespace, ends of containers are told by BPF only")
    return RingExits(proc, memory)
