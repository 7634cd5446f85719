"""`watch` and `demo`: print events as they come, until told to end."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from startgate.agent.counting import Counting
from startgate.cli import logfmt
from startgate.cli.demo import DemoContainer
from startgate.cli.ending import ENDS, Ended, ended_by, signals_later
from startgate.cli.table import Table
from startgate.errors import StartgateError
from startgate.events import Event
from startgate.filters import compile_filter
from startgate.folding import Folding
from startgate.foreign import one_line
from startgate.keeper.channel import Channel
from startgate.lines import line
from startgate.watcher import Watcher

if TYPE_CHECKING:
    from startgate.config.active import Active
    from startgate.journal.spool import Spool

log = logging.getLogger(__name__)

_ENDS_WORKER = (signal.SIGINT,)
"""What a daemon's guard says. SIGTERM is a worker's death: what it holds is not its own to let go."""
_FOLDED_IN_TABLES = 60.0
"""Seconds: nobody reads a table for the sake of probes."""


@contextmanager
def reloading(active: Active) -> Iterator[None]:
    """For the length of the block, load again on SIGHUP and when a file changes.

    Where no file decides, SIGHUP ends the program as ever.
    """
    if not active.files:
        yield
        return
    from startgate.config.reloader import Reloader  # noqa: PLC0415

    with Reloader(active) as reloader:
        before = signal.signal(signal.SIGHUP, lambda number, frame: reloader.reload())
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, before)


@contextmanager
def deciding(
    make: Callable[[], Watcher],
    path: str | None,
    policies: Sequence[str],
    commands: Sequence[str],
    keep_at: str | None = None,
) -> Iterator[Watcher]:
    """For the length of the block, rules and hooks decide on what a watcher sees: those of the configuration
    file at `path`, of the policy files, and of the commands of `--hook`.

    `make` makes the watcher, once they are loaded; `keep_at`: see Active. Raises UsageError.
    """
    if not (path or policies or commands):
        yield make()
        return
    from startgate.config.active import Active  # noqa: PLC0415  (a third of the start, for those who need it)
    from startgate.hooks import parse_option  # noqa: PLC0415

    hooks = [parse_option(text) for text in commands]
    with Active(None, path, policy=policies, hooks=hooks, keep_at=keep_at) as active:
        watcher = make()
        active.attach(watcher)
        with reloading(active):
            yield watcher


class Watch:
    """Prints a watcher's events."""

    def __init__(
        self,
        watcher: Watcher,
        output: str,
        *,
        keep: str | None = None,
        count: int | None = None,
        seconds: float | None = None,
        ready: Callable[[], object] = lambda: None,
        lines: Channel | None = None,
        full_exec: bool = False,
        types: Sequence[str] = (),
        wide: bool = False,
        fold_exec: float | None = None,
        spool: Spool | None = None,
    ) -> None:
        """`ready` is called once, when it holds. `lines` is where a daemon's worker prints.
        `full_exec`: `exec` and other short events have all of their container. `types`: of events to
        show; none: all. `wide`: the table has all columns, and cuts nothing. `fold_exec`: seconds for
        which executions of the same command are told as one; 0: each is told; None: as the output is.
        `spool` gets each event, whatever `keep` says; it is printed with the number that it has there.

        Raises UsageError when the filter does not compile.
        """
        self._watcher = watcher
        self._keep = compile_filter(keep) if keep else None
        if self._keep and self._keep.asks_for_actual:
            watcher.read_actual()
        self._count = count
        self._seconds = seconds
        self._ready = ready
        self._needs_output = lines is None
        folds = fold_exec if fold_exec is not None else _FOLDED_IN_TABLES * (output == "table")
        # Not what is spooled: what is kept back dies with us, and no number would be missing.
        self._folding = Folding(folds) if folds and not spool else None
        self._asked_to_fold = bool(fold_exec)
        self._ended_by = ENDS if lines is None else _ENDS_WORKER
        self._types = frozenset(types)
        self._full_exec = full_exec
        self._spool = spool
        self._counting = Counting(watcher) if spool else None
        say = write if lines is None else lines.send_waiting
        if output == "json":
            self._print: Callable[[Event, bytes], object] = lambda event, data: say(data)
        elif output == "logfmt":
            self._print = lambda event, data: say(logfmt.line(event, watcher.events.number))
        elif output == "none":
            self._print = lambda event, data: None
        else:
            table = Table(lines_by(say), wide=wide)
            self._print = lambda event, data: table.row(event)
        self._json = output == "json"

    def run(self, *, demo: bool, end_with_demo: bool) -> None:
        """Watch until a signal, the count, the time, or the demo's end."""
        # Callbacks and tables compute in Python: a reader must not wait 5 ms for the GIL.
        sys.setswitchinterval(0.0005)
        with ended_by(self._ended_by), ExitStack() as parts:
            container = parts.enter_context(DemoContainer()) if demo else None
            with signals_later():  # libbpf's callbacks would swallow them
                parts.enter_context(self._watcher)
            gc.freeze()  # a collection that walks all that was imported takes 5 ms, with Python's lock
            self._ready()
            self._say_ready(sys.stderr)
            if self._folding and self._watcher.exec_records == "procfs":
                if self._asked_to_fold:
                    log.warning("without BPF nobody tells how an exec ends: --fold-exec does nothing")
                self._folding = None
            until = time.monotonic() + self._seconds if self._seconds is not None else None
            if container:
                container.start()
            try:
                with suppress(BrokenPipeError):  # `| head` has what it wants
                    self._show(until, container.id if container and end_with_demo else None)
            finally:
                self._finish()

    def _say_ready(self, stream: TextIO) -> None:
        binaries = self._watcher.binaries
        names = one_line(", ".join(binaries)) or "none installed yet"
        records = self._watcher.exec_records
        with suppress(OSError):  # a full disk
            stream.write(f"watching {len(binaries)} runtime binaries ({names}); exec records: {records}\n")
            if stream.isatty() and sys.stdout.isatty():
                stream.write("waiting for containers to start; Ctrl-C ends it\n")
            stream.flush()

    def _show(self, until: float | None, last: str | None) -> None:
        shown = 0
        try:
            for event in self._events(until):
                shown += self._tell(event)
                if shown == self._count or _ends(event, last):
                    return
        except Ended:
            for event in self._folding.end() if self._folding else ():
                self._tell(event)
            raise

    def _wants(self, event: Event) -> bool:
        return (not self._types or event.type in self._types) and (self._keep is None or self._keep(event))

    def _finish(self) -> None:
        """Spool what was told and not shown yet, and the last count: nobody comes after us who could."""
        if self._counting is None or self._spool is None:
            return
        with suppress(OSError, StartgateError):
            self._spool.reopen()
            self._counting.publish()
            while event := self._watcher.events.get(timeout=0):
                self._tell(event)

    def _tell(self, event: Event) -> bool:
        """Print the event if it is wanted: is it?"""
        wanted = self._wants(event)
        self._watcher.events.number += wanted or self._spool is not None
        number = self._watcher.events.number
        needed = self._spool is not None or (wanted and self._json)
        data = line(event, number, full_exec=self._full_exec) if needed else b""
        if self._spool:
            self._spool.add(data, number)
        if wanted:
            self._print_one(event, data)
        return wanted

    def _print_one(self, event: Event, data: bytes) -> None:
        try:
            self._print(event, data)
        except OSError as error:  # EPIPE, ENOSPC
            if self._needs_output:
                raise
            log.error("a %s event is lost, it can't be printed: %s", event.type, error)

    def _events(self, until: float | None) -> Iterator[Event]:
        folding = self._folding
        while True:
            counting = self._counting
            dues = (until, folding and folding.next_due, counting and time.monotonic() + counting.left)
            due = min((each for each in dues if each), default=None)
            left = None if due is None else max(0.0, due - time.monotonic())
            event = self._watcher.events.get(timeout=left)
            counted = counting is not None and counting.is_due()
            if event is None and not counted and (due == until or self._watcher.events.closed):
                break
            if event and not folding:
                yield event
            elif folding:
                yield from folding.take(event) if event else ()
                yield from folding.due()
        yield from folding.end() if folding else ()
        self._watcher.check()


def _ends(event: Event, container: str | None) -> bool:
    return bool(container and event.container and event.container.id == container) and event.type in (
        "stopped",
        "denied",
    )


def write(data: bytes) -> None:
    """Write to stdout."""
    # Unbuffered, in one write: whoever reads a pipe gets whole lines, at once.
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def lines_by(write: Callable[[bytes], object]) -> TextIO:
    """Return stdout, of which each flush is given to `write` as one piece."""
    return cast(TextIO, _Lines(write))


class _Lines(io.TextIOBase):
    """Stdout, of which each flush is written as one piece."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._text = ""

    def isatty(self) -> bool:
        return sys.stdout.isatty()

    def fileno(self) -> int:
        return sys.stdout.fileno()

    def write(self, text: str) -> int:
        self._text += text
        return len(text)

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._write(text.encode(errors="replace"))
