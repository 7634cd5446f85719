"""`history`: what the journal tells, as a table, JSON, CSV or a Perfetto trace."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from startgate.cli.table import Table, command, describe_exit, shorten
from startgate.events import Event
from startgate.foreign import json_line, one_line
from startgate.journal.history import Query, Search, top
from startgate.journal.reader import Journal, Row
from startgate.journal.times import moment

_COLUMNS = (
    "time type id name image namespace pod engine uid pid held_us exit_code exit_signal rule reason what"
).split()


def show(directory: str, query: Query, output: str) -> None:
    """Print what matches. Raises UsageError, JournalError."""
    with Journal(directory) as journal, _until_nobody_reads():
        search = Search(journal, query, _progress if sys.stderr.isatty() else lambda done, of: None)
        _PRINT[output](search, search.rows())


def show_top(directory: str, query: Query, size: int, output: str) -> None:
    """Print what happened most. Raises JournalError."""
    with Journal(directory) as journal, _until_nobody_reads():
        found = top(journal, query, size)
    if output == "json":
        document = {name: [one._asdict() for one in ranked] for name, ranked in found.items()}
        sys.stdout.write(json_line(document).decode() + "\n")
        return
    for name, ranked in found.items():
        sys.stdout.write(f"{name.upper()}\n")
        for number, what in ranked:
            text = f"{number / 1000:.1f}ms" if name == "slowest holds" else str(number)
            sys.stdout.write(f"{text:>10}  {one_line(what)}\n")
        sys.stdout.write("" if ranked else "         -\n")


def show_replay(directory: str, policy: str, since: str | None, output: str) -> bool:
    """Print what rules would have said; would they have refused anything? Raises UsageError, JournalError."""
    from startgate.journal.replay import replay  # noqa: PLC0415  (with rules: a third of the start)
    from startgate.policy import rules  # noqa: PLC0415

    query = Query(since=None if since is None else moment(since, time.time()))
    compiled = rules.load([policy])
    with Journal(directory) as journal:
        found = replay(journal, compiled, query)
    if output == "json":
        sys.stdout.write(json_line(found).decode() + "\n")
        return bool(found.refused)
    width = max((len(one.rule) for one in found.rules), default=4)
    lines = [f"{'RULE':<{width}} {'EVENT':<8} {'RESULT':<6} {'TIMES':>7} LAST"]
    for one in sorted(found.rules, key=lambda one: -one.times):
        last = f"{one.time[:19]}Z {shorten(one.container, 20)} ({one.image or '-'}): {one.message}"
        lines.append(f"{one.rule:<{width}} {one.event:<8} {one.result:<6} {one.times:>7} {last}")
    lines.append(f"{found.starts} starts, {found.execs} execs: {found.refused} would have been refused")
    sys.stdout.write("".join(one_line(line) + "\n" for line in lines))
    return bool(found.refused)


@contextmanager
def _until_nobody_reads() -> Iterator[None]:
    """End well where the reader of a pipe has seen enough: `head`."""
    with suppress(BrokenPipeError):
        yield
        sys.stdout.flush()
        return
    with suppress(OSError):
        sys.stdout.close()


def _json(search: Search, rows: Iterable[Row]) -> None:
    for row in rows:
        sys.stdout.write(row.line.decode() + "\n")


def _table(search: Search, rows: Iterable[Row]) -> None:
    """As `watch` shows them, with a line where the day changes."""
    table, day = Table(sys.stdout), ""
    for row in rows:
        today = time.strftime("%Y-%m-%d", time.localtime(row.time // 1_000_000_000))
        if today != day:
            sys.stdout.write(f"-- {today}\n")
            day = today
        table.row(msgspec.json.decode(row.line, type=Event))


def _csv(search: Search, rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in _values(search.event(row))])


def _values(event: Event) -> list[object]:
    container, pod = event.container, event.container and event.container.kubernetes
    words = event.process.argv if event.process else container.args if container else ()
    return [
        event.time,
        event.type,
        container and container.id,
        container and container.name,
        container and container.image,
        pod and pod.namespace,
        pod and pod.pod,
        container and container.engine,
        container and container.uid,
        container and container.pid,
        event.held_us,
        event.exit and event.exit.code,
        event.exit and event.exit.signal,
        event.reason and event.reason.rule,
        event.reason and event.reason.message,
        describe_exit(event.exit) if event.exit else command(words),
    ]


def _cell(value: object) -> object:
    """Return it for a spreadsheet, which takes a text that begins like a formula for one."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = one_line(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and len(text) > 1 else text


def _perfetto(search: Search, rows: Iterable[Row]) -> None:
    from startgate.journal.perfetto import trace  # noqa: PLC0415  (an extra)

    for packet in trace(search.event(row) for row in rows):
        sys.stdout.buffer.write(packet)


_PRINT: dict[str, Callable[[Search, Iterable[Row]], None]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "perfetto": _perfetto,
}
OUTPUTS = tuple(_PRINT)


def _progress(done: int, of: int) -> None:
    sys.stderr.write("\r\033[K" if done == of else f"\r{done} containers looked at")
    sys.stderr.flush()
