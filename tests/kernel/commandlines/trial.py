"""One command line after another: generate, execute, parse, compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from startgate.runtimes import commandline
from tests.kernel.commandlines.compare import differences
from tests.kernel.commandlines.generate import COMMANDS, Generator
from tests.kernel.commandlines.world import Seen, World
from tests.kernel.support import Runtime


@dataclass
class Trial:
    """A command line, what was seen of it, and in what `parse` was wrong."""

    words: list[str]
    seen: Seen
    differences: list[str]


def try_lines(runtime: Runtime, directory: Path, seed: int, number: int) -> Iterator[Trial]:
    """Try command lines; the same for the same seed."""
    world = World(runtime, directory)
    try:
        for words in islice(Generator(runtime.name, world.places, seed).lines(), number):
            yield _try(world, words)
    finally:
        world.close()


def _try(world: World, words: list[str]) -> Trial:
    command = next(word for word in words if word in COMMANDS)
    world.prepare(words, command)
    seen = world.execute(words, command)
    path = world.runtime.prefix[-1]
    call = commandline.parse([os.fsencode(word) for word in (path, *words)])
    found = differences(call, seen, world)
    world.tidy(seen, command)
    return Trial(words, seen, found)
