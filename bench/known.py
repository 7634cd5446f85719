"""A watcher that knows many containers already: `python3 bench/known.py --known 1000 --callbacks 10`.

They are simulated: entries as the gates make them, each with a pidfd of its own, all of one
process that sleeps. Events go to stdout as `startgate watch --output json` prints them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading

from startgate import Event, Watcher
from startgate.events import Container
from startgate.gates.context import Context
from startgate.hold import Hold
from startgate.keeper.protocol import Held
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry, Key
from startgate.runtimes.commandline import Command, Invocation


def simulate(context: Context, process: ProcessId, number: int) -> None:
    """Make the watcher know a running container."""
    name = f"known-{number}"
    container = Container(id=name, pid=process.pid, annotations={"n": name}, args=("sleep", "inf"))
    entry = Entry(
        key=Key("/run/runc", name),
        invocation=Invocation(Command.RUN, name),
        runtime=ProcessId(-number - 1, 0),
        container=container,
        command=Hold(context.pid_files._group, Held(0, 0, 0)),
        told=True,
    )
    context.lifecycle.begin(entry)
    context.lifecycle.claim(entry, container)
    context.lifecycle.passed(entry)
    context.lifecycle.started(entry)
    entry.init_watch = context.exits.watch(process, lambda status: None)


def ignore(event: Event) -> None:
    """A callback that has nothing to say."""


def main() -> None:
    """Watch until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--known", "--callbacks", "--subscribers"):
        parser.add_argument(name, type=int, default=0)
    parser.add_argument("--runtime", action="append", default=[], help="a further one to watch")
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)
    sleeper = subprocess.Popen(["sleep", "infinity"])
    contexts: list[Context] = []

    class Known(Watcher):
        def _context(self, *arguments: object) -> Context:
            contexts.append(super()._context(*arguments))  # type: ignore[arg-type]
            return contexts[-1]

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    with Known(runtimes=given.runtime) as watcher:
        for number in range(given.known):
            simulate(contexts[0], Proc().identify(sleeper.pid), number)
        for _ in range(given.callbacks):
            watcher.on("creating", ignore)
            watcher.on("created", ignore)
        for _ in range(given.subscribers):
            iterator = watcher.subscribe()
            threading.Thread(target=lambda it=iterator: [None for _ in it], daemon=True).start()
        sys.stderr.write(f"watching, {given.known} known\n")
        try:
            for event in watcher:
                os.write(1, event.to_json() + b"\n")
        finally:
            sleeper.kill()


if __name__ == "__main__":
    main()
