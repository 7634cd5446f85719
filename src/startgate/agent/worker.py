"""The worker: a watcher over what the daemon's keeper has."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack, closing
from typing import Any

from startgate import cli
from startgate.agent.handover import Handover
from startgate.cli import log as cli_log
from startgate.cli.watch import Watch, deciding
from startgate.inherited import holding, notes
from startgate.inherited.resources import Resources
from startgate.journal.spool import Spool
from startgate.watcher import Watcher

log = logging.getLogger(__name__)


def run(handover: Handover) -> None:
    """Watch until a signal asks for the end. Raises what `Watcher.start` raises."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # unless there are files to load again: `deciding`
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    options = dict(handover.watch)
    output, keep, full = options.pop("output"), options.pop("keep"), options.pop("full_exec", False)
    fold = options.pop("fold_exec", None)
    spool = options.pop("spool", None)
    decisions = options.pop("config_path"), options.pop("policies"), options.pop("commands")
    keep_at = os.path.join(handover.notes, notes.IN_FORCE)
    # Files are read before the keeper is told of us: they may be beside somebody's pid file, where it
    # would hold who reads until we answer.
    with ExitStack() as parts:
        spooled = _spool(parts, spool) if spool else None
        making = deciding(lambda: _watcher(handover, options), *decisions, keep_at=keep_at)
        watching = parts.enter_context(making)

        def ready() -> None:
            watching.tell_ready()
            holding.tell(handover.notes, watching.exec_records, watching.binaries)

        watch = Watch(
            watching,
            output,
            keep=keep,
            ready=ready,
            lines=watching.lines,
            full_exec=full,
            fold_exec=fold,
            spool=spooled,
        )
        watch.run(demo=False, end_with_demo=False)


def _spool(parts: ExitStack, directory: str) -> Spool | None:
    """Open the spool. Without one starts are held all the same; lines are missing then, and told so."""
    try:
        return parts.enter_context(closing(Spool(directory)))
    except OSError as error:
        log.error("nothing goes to the journal: the spool can't be opened: %s", error)
        return None


def _watcher(handover: Handover, options: dict[str, Any]) -> Watcher:
    resources = Resources.inherit(handover.source, handover.fds)
    return Watcher(**options, inherited=resources, notes=handover.notes)


def main() -> None:
    """Run with the handover that is the only argument."""
    cli_log.configure(logging.WARNING)
    with cli.told_errors():
        run(Handover.from_json(sys.argv[1]))


if __name__ == "__main__":
    main()
