"""The readers of both groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from startgate.gates.command import CommandGate
from startgate.gates.container import ContainerGate
from startgate.gates.context import Context
from startgate.gates.reader import Crew, Reader
from startgate.keeper.keeper import Keeper

_READERS = 4
"""For each group. All but one may be at work on what they received."""

Gates = tuple[CommandGate, ContainerGate]
"""What decides on the events of each group."""


def reading(keeper: Keeper, context: Context, gates: Gates) -> ExitStack:
    """Begin to receive what both groups hold; the stack's end ends it.

    Not a generator: a forked child that forgets one would end it.
    """
    with ExitStack() as parts:
        for reader in _readers(keeper, context, gates):
            reader.start()
            parts.callback(reader.close)
        return parts.pop_all()


def _readers(keeper: Keeper, context: Context, gates: Gates) -> Iterator[Reader]:
    crews = Crew(), Crew()
    groups = keeper.commands, keeper.containers
    missed = (lambda: None), gates[1].missed
    for number in range(_READERS):
        for which, name in ((1, "pid files"), (0, "commands")):
            before = () if number else keeper.pending[which]
            yield Reader(
                name,
                groups[which],
                context,
                gates[which].decide,
                crew=crews[which],
                before=before,
                missed=missed[which],
            )
