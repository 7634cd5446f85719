"""Writes the system calls of each container into DIRECTORY/ID.txt, from its first instruction on.

Usage: strace_each.py DIRECTORY [CEL]
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from startgate import Watcher
from startgate.tracing import Told, trace


def tell(told: Told) -> None:
    """Called on several threads."""
    print(f"{told.container.name or told.container.id}: {told.kind}: {told.text}", flush=True)


def main(directory: str, match: str | None = None) -> None:
    """Trace until Ctrl-C."""
    Path(directory).mkdir(exist_ok=True)
    command = ["strace", "-f", "-tt", "-p", "{pid}", "-o", f"{directory}/{{id}}.txt"]
    watcher = Watcher(existing=False)
    with trace(watcher, command, match=match, tell=tell), watcher:
        print("tracing", flush=True)
        for event in watcher:
            if event.type == "lost" and event.reason:
                print(f"not seen in time: {event.reason.message}", flush=True)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
