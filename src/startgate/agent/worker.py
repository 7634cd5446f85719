"""The worker: a watcher over what its supervisor keeps."""

from __future__ import annotations

import logging
import os
import signal
import sys

from startgate import cli, notes
from startgate.agent import words
from startgate.agent.handover import Handover
from startgate.cli import log
from startgate.cli.watch import Watch, deciding
from startgate.kernel import parent
from startgate.listeners import lost
from startgate.resources import Resources
from startgate.watcher import Watcher


def run(handover: Handover) -> None:
    """Watch until a signal asks for the end. Raises what `Watcher.start` raises."""
    parent.end_with(handover.supervisor)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # unless there are files to load again: `deciding`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    options = dict(handover.watch)
    output, keep = options.pop("output"), options.pop("keep")
    decisions = options.pop("config_path"), options.pop("policies"), options.pop("commands")
    if any(decisions):
        import startgate.active  # noqa: F401, PLC0415  (slow: before anyone waits for us)
    gap = words.take_turn(handover.fds)
    resources = Resources.inherit(handover.source, handover.fds)
    watcher = Watcher(**options, inherited=resources, notes=handover.notes)

    def begin() -> None:
        if gap:
            watcher.publish(lost(gap))
        if resources.unseen:
            watcher.publish(lost(f"{resources.unseen} tasks that the worker before held were let go unseen"))
        words.say_ready(handover.fds)  # last: the supervisor forgets the gap

    with deciding(watcher, *decisions, keep_at=os.path.join(handover.notes, notes.IN_FORCE)):
        # Rules and hooks matter more than who reads of them.
        watch = Watch(watcher, output, keep=keep, ready=begin, needs_output=False)
        watch.run(demo=False, end_with_demo=False)


def main() -> None:
    """Run with the handover that is the only argument."""
    log.configure(logging.WARNING)
    with cli.told_errors():
        run(Handover.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
