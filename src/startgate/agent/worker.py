"""The worker: a watcher over what its supervisor keeps."""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from typing import Any

from startgate import cli
from startgate.agent import words
from startgate.agent.handover import Handover
from startgate.cli import log
from startgate.cli.watch import Watch, deciding
from startgate.inherited import notes
from startgate.inherited.resources import Resources
from startgate.kernel import parent
from startgate.listeners import lost
from startgate.watcher import Watcher


def run(handover: Handover) -> None:
    """Watch until a signal asks for the end. Raises what `Watcher.start` raises."""
    parent.end_with(handover.supervisor)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # unless there are files to load again: `deciding`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    options = dict(handover.watch)
    output, keep = options.pop("output"), options.pop("keep")
    decisions = options.pop("config_path"), options.pop("policies"), options.pop("commands")
    inherited = _Inherited(handover)
    keep_at = os.path.join(handover.notes, notes.IN_FORCE)
    # Files are read before we take our turn: they may be beside somebody's pid file, where our own
    # group holds who reads.
    with deciding(lambda: inherited.watcher(options), *decisions, keep_at=keep_at) as watcher:
        # Rules and hooks matter more than who reads of them.
        ready = partial(inherited.tell, watcher)
        watch = Watch(watcher, output, keep=keep, ready=ready, needs_output=False)
        watch.run(demo=False, end_with_demo=False)


class _Inherited:
    """What the supervisor and the worker before us left."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._gaps: list[str] = []

    def watcher(self, options: dict[str, Any]) -> Watcher:
        """Wait for our turn; return a watcher over what is inherited then."""
        gap = words.take_turn(self._handover.fds)
        resources = Resources.inherit(self._handover.source, self._handover.fds)
        unseen = f"{resources.unseen} tasks that the worker before held were let go unseen"
        self._gaps = [message for message in (gap, resources.unseen and unseen) if message]
        return Watcher(**options, inherited=resources, notes=self._handover.notes)

    def tell(self, watcher: Watcher) -> None:
        """It holds: tell what nobody saw, and the supervisor."""
        for message in self._gaps:
            watcher.publish(lost(message))
        words.say_ready(self._handover.fds)  # last: the supervisor forgets the gap


def main() -> None:
    """Run with the handover that is the only argument."""
    log.configure(logging.WARNING)
    with cli.told_errors():
        run(Handover.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
