"""Does a command line that nobody expected make a container? Pure.

Stricter than `commandline.parse`, which trusts that what it reads is a runtime's: `env -i runc run x`
is not, and what `docker run` and `npm run` do is told by others.
"""

from __future__ import annotations

import os

from startgate.runtimes import commandline
from startgate.runtimes.commandline import Command, Invocation

_STARTING = frozenset(os.fsencode(command.value) for command in Command if command.starts)


def start(argv: list[bytes]) -> Invocation | None:
    """Return what the command line starts, if it is one that a runtime would understand."""
    at = 1
    while at < len(argv) and argv[at].startswith(b"-"):
        valued = os.fsdecode(argv[at]) in commandline.GLOBAL_VALUED
        at += 2 if valued else 1
    if at >= len(argv) or argv[at] not in _STARTING:
        return None
    call = commandline.parse(argv)
    return call if call.command.starts else None
