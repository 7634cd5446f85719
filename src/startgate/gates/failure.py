"""Why a start came to nothing: how its runtime ended, and what it wrote last into its log."""

from __future__ import annotations

import logging
import posixpath
import signal
from collections.abc import Sequence
from contextlib import suppress

from startgate.errors import NotReadable
from startgate.events import printable
from startgate.gates.view import View
from startgate.kernel import pidfd
from startgate.kernel.local import LocalFiles
from startgate.kernel.process import Proc
from startgate.lifecycle import Entry
from startgate.runtimes import state
from startgate.runtimes.commandline import Command
from startgate.runtimes.log import RuntimeLog, last_error

log = logging.getLogger(__name__)

_LIMIT = 256 << 10
# crun's --log takes where to as well
_NO_FILES = ("journald:", "syslog:")


def path_of_log(given: str | None) -> str | None:
    """Return the path that a ``--log`` names, None where that is no file."""
    return given.removeprefix("file:") if given and not given.startswith(_NO_FILES) else None


def find_log(proc: Proc, entry: Entry, view: View, bundle: str, parent: int) -> RuntimeLog | None:
    """Return where a runtime that is held will write its errors; its `parent` may outlive it."""
    if not (given := path_of_log(entry.invocation.log)):
        return None
    crun = entry.flavour is state.CRUN  # it has changed to the bundle by then
    path = view.absolute(given, bundle if crun else None)
    place, name = posixpath.split(view.real_path(path) or path)
    place = view.real_path(place) or place
    if not (directory := view.stat(place)):
        return None
    before, caller = view.stat(path), None
    with suppress(NotReadable):
        caller = proc.identify(parent)
    size = before.st_size if before else 0
    return RuntimeLog(posixpath.join(place, name), (directory.st_dev, directory.st_ino), size, caller)


def find_users_log(files: LocalFiles, path: str | None) -> RuntimeLog | None:
    """Return the same of a user's runtime; `path` is where it writes, as the host names it."""
    try:
        directory = files.stat(posixpath.dirname(path)) if path else None
    except OSError:
        return None
    if not path or not directory:
        return None
    size = 0
    with suppress(OSError):  # there is none yet
        size = files.stat(path).st_size
    return RuntimeLog(path, (directory.st_dev, directory.st_ino), size)


def describe(proc: Proc, entry: Entry, status: int | None, others: Sequence[Entry] = ()) -> str:
    """Return the sentence that tells of a start whose runtime ended with this wait status. On a worker.

    `others` are known as well: where they write the same log, it is not known whose line is whose.
    """
    alone = not entry.log or entry.log.path not in {other.log.path for other in others if other.log}
    line = _last_error(proc, entry) if alone and status != 0 else None
    # A program whose first exec nobody waited for may have run unseen.
    failed = status != 0 and (line or entry.gated or entry.invocation.command is Command.CREATE)
    said = f": {line}" if line else ""
    outcome = "the start failed" if failed else "no container was seen"
    return f"{outcome}: {entry.container.runtime or 'the runtime'} {_how(status)}{said}"


def _how(status: int | None) -> str:
    if status is None:
        return "ended"
    code, number = pidfd.decode_wait_status(status)
    if number is None:
        return f"ended with exit code {code}"
    try:
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"was ended by signal {number}"


def _last_error(proc: Proc, entry: Entry) -> str | None:
    if not (found := entry.log):
        return None
    views = [(proc.host, "/proc/self")]
    if found.caller and proc.is_alive(found.caller):
        process = f"{proc.root}/{found.caller.pid}"
        views.append((f"{process}/root", process))
    for root, process in views:
        try:
            with LocalFiles(root, entry.key.uid, process) as files:
                directory = files.stat(posixpath.dirname(found.path))
                if (directory.st_dev, directory.st_ino) == found.directory:
                    return last_error(files.read_part(found.path, found.size, _LIMIT))
        except OSError as error:
            log.info("the log of %s is not read: %s", entry.container.id, printable(str(error)))
    return None
