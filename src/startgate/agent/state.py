"""The supervisor's states: whose the groups are, and what becomes of events."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Each says who has the groups, which are one process's at a time: see `words`."""

    FIRST = "first"
    """The first worker starts and has them: if it can't, the supervisor ends too."""
    STARTING = "starting"
    """Nobody: events wait in the kernel for the next worker. Not ready in time: TAKING or ABSENT ends it."""
    ABSENT = "absent"
    """The supervisor: it lets all go, as no worker was ready in time, until one asks."""
    TAKING = "taking over"
    """The worker, which is not ready yet. Not ready in time: it is killed, and ABSENT follows."""
    WORKING = "working"
    """The worker: while something is unread or held, `Health` looks at its counters."""
