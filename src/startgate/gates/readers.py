"""The readers of both fanotify groups, and the turnstile before those of the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack

from startgate.gates.command import CommandGate
from startgate.gates.container import ContainerGate
from startgate.gates.context import Context
from startgate.gates.reader import Crew, Reader
from startgate.inherited.resources import COMMANDS, CONTAINERS, Resources
from startgate.kernel.turnstile import Turnstile, Words
from startgate.runtimes import commandline

log = logging.getLogger(__name__)

_READERS = 4
"""For each group. All but one may be at work on what they read. Of the second group, they may hang, too:
read(2) opens the file, on overlayfs above a FUSE server that hangs it waits."""

_WORDS = Words(commandline.WORDS - commandline.SETTLING_WORDS, commandline.SETTLING_WORDS)

Gates = tuple[CommandGate, ContainerGate]
"""What decides on the events of each group."""


def reading(resources: Resources, context: Context, gates: Gates) -> ExitStack:
    """Begin to read both groups; the stack's end ends it.

    Not a generator: a forked child that forgets one would end it.
    """
    with ExitStack() as parts:
        turnstile = _turnstile(resources)
        if turnstile:
            parts.callback(turnstile.close)
        for reader in _readers(resources, context, gates, turnstile):
            reader.start()
            parts.callback(reader.close)
        return parts.pop_all()


def _turnstile(resources: Resources) -> Turnstile | None:
    """Start it, where records are found in a table. Without it the readers let go who needs no hold."""
    table, progress = resources.source.table(), resources.progress
    if table is None:
        return None
    try:
        return Turnstile(resources.commands, table, _WORDS, progress.turnstile())
    except OSError as error:
        log.info("no turnstile, so commands that need no hold take longer: %s", error)
        return None


def _readers(
    resources: Resources, context: Context, gates: Gates, turnstile: Turnstile | None
) -> Iterator[Reader]:
    groups = resources.commands, resources.containers
    crews = Crew(in_turn=True), Crew()  # exec records come in the order of their events
    for number in range(_READERS):
        for which, name in ((CONTAINERS, "pid files"), (COMMANDS, "commands")):
            yield Reader(
                name,
                groups[which],
                context,
                gates[which].decide,
                pulse=resources.progress.reader(which),
                crew=crews[which],
                turnstile=turnstile if which == COMMANDS else None,
                again=() if number else resources.pending[which],
            )
