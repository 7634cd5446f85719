"""A first exec that is held in case that nobody reads the pid file, and nobody calls `start`."""

from __future__ import annotations

import logging
import os

from startgate.errors import BundleError
from startgate.gates import program
from startgate.gates.context import Context
from startgate.lifecycle import Entry, State

log = logging.getLogger(__name__)


def hold(context: Context, entry: Entry, pid: int) -> None:
    """Hold the first exec of the init `pid` until another gate is passed. On a worker."""
    if context.programs.holds(entry) or not _hold(context, entry, pid):
        return
    entry.spare = True
    context.note(entry)
    if entry.state is not State.CREATING:
        drop(context, entry)


def _hold(context: Context, entry: Entry, pid: int) -> bool:
    try:
        if entry.config is None:
            raise BundleError("its program is not known")
        fd = program.open_of_init(context.proc, pid, entry.config)
        try:
            context.programs.add(entry, fd)
        finally:
            os.close(fd)
    except (OSError, BundleError) as error:
        log.warning("container %s: its first exec is not held: %s", entry.container.id, error)
        return False
    return True


def drop(context: Context, entry: Entry) -> None:
    """Another gate is passed: who executes the program goes on. On a worker."""
    if entry.spare:
        entry.spare = False
        context.programs.remove(entry)
