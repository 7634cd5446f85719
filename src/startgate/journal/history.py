"""Asking the journal: filters in CEL, evaluated once for each distinct container, and what happened most."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from startgate.events import Container, Event
from startgate.filters import Filter, compile_filter
from startgate.journal.database import TYPES, type_number
from startgate.journal.reader import Journal, Row
from startgate.journal.selection import Selection

_NAMED = re.compile(r'\s*container\.(id|name|image)\s*==\s*"([^"\\]+)"\s*')
_TYPED = re.compile(r'\s*type\s*==\s*"([a-z]+)"\s*')
_LETTERS = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|&&|\|\||[()\[\]{}?]|.', re.DOTALL)
_REMEMBERED = 10_000

Progress = Callable[[int, int], object]
"""Told how many records were looked at, of how many: 0, as nobody knows; as many: it is done."""


class Query(NamedTuple):
    """What is asked for; see `Journal.events`."""

    since: int | None = None
    until: int | None = None
    types: Sequence[str] = ()
    container: str | None = None
    image: str | None = None
    pod: str | None = None
    keep: str | None = None
    """A filter in CEL."""
    last: int | None = None
    """Only so many, the newest."""


def conjuncts(expression: str) -> list[str]:
    """Split an expression where all of its parts have to be true; where that is not clear, it is one part."""
    parts, depth, part = [], 0, ""
    for letter in _LETTERS.findall(expression):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif depth == 0 and letter in ("||", "?"):
            return [expression]
        if letter == "&&" and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]


class _Judged:
    """What filters on containers say, asked once for all records that are the same in what they ask for."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = filters
        asked = [each.asked_of("container") for each in filters]
        names = None if None in asked else sorted(frozenset().union(*filter(None, asked)))
        self._decoder = None if names is None else msgspec.json.Decoder(_struct(names))
        self._known: dict[bytes, bool] = {}

    def __call__(self, record: bytes) -> bool:
        """Do all of them match the record?"""
        key = (
            record if self._decoder is None else b"\0".join(map(bytes, astuple(self._decoder.decode(record))))
        )
        if key not in self._known:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            container = msgspec.json.decode(record, type=Container)
            event = Event(type="created", gate="none", container=container)
            self._known[key] = all(matches(event) for matches in self._filters)
        return self._known[key]


def _struct(names: Iterable[str]) -> type[msgspec.Struct]:
    """Return a type with these fields, which are not looked into."""
    return msgspec.defstruct("Asked", [(name, msgspec.Raw, msgspec.Raw(b"")) for name in names])


class Search:
    """Events that match a query."""

    def __init__(self, journal: Journal, query: Query, progress: Progress = lambda done, of: None) -> None:
        """Raises UsageError where the filter does not compile."""
        self._journal = journal
        self._progress = progress
        self._of_containers: list[Filter] = []
        self._of_events: list[Filter] = []
        self._query = query
        if query.keep:
            compile_filter(query.keep)  # its errors are told at their place in the whole
            for part in conjuncts(query.keep):
                self._take(part)
        self._whole: dict[str, Container | None] = {}

    def rows(self) -> Iterator[Row]:
        """Yield them in the journal's order. Raises JournalError."""
        query = self._query
        if query.last is None:
            yield from self._matching(newest_first=False)
            return
        newest = []
        for row in self._matching(newest_first=True):
            newest.append(row)
            if len(newest) == query.last:
                break
        yield from reversed(newest)

    def only(self, types: Sequence[str]) -> Iterator[Row]:
        """Yield those of these types."""
        self._query = self._query._replace(types=types)
        return self.rows()

    def event(self, row: Row) -> Event:
        """Return a row's event, with all that is known of its container."""
        event = msgspec.json.decode(row.line, type=Event)
        short = event.container and event.container.start_id and not event.container.args
        if short and event.container and (whole := self._whole_of(event.container.start_id or "")):
            return msgspec.structs.replace(event, container=whole)
        return event

    def _take(self, part: str) -> None:
        """Take a part of the filter: one that only asks for the container is asked for records alone."""
        compiled = compile_filter(part)
        if match := _NAMED.fullmatch(part):
            self._narrow(match[1], match[2])
        elif (match := _TYPED.fullmatch(part)) and match[1] in TYPES and not self._query.types:
            self._query = self._query._replace(types=[match[1]])
            return  # its index tells all
        (self._of_containers if compiled.asks_only_for("container") else self._of_events).append(compiled)

    def _narrow(self, name: str, value: str) -> None:
        """What is indexed need not be looked for: the filter is asked all the same."""
        query = self._query
        if name == "image" and query.image is None:
            self._query = query._replace(image=value)
        elif name != "image" and query.container is None:
            self._query = query._replace(container=value)

    def _matching(self, *, newest_first: bool) -> Iterator[Row]:
        query = self._query
        records = self._records() if self._of_containers else None
        limit = query.last if not self._of_events else None
        for row in self._journal.events(
            since=query.since,
            until=query.until,
            types=query.types,
            container=query.container,
            image=query.image,
            pod=query.pod,
            records=records,
            limit=limit,
            newest_first=newest_first,
        ):
            if not self._of_events or self._matches(row):
                yield row

    def _matches(self, row: Row) -> bool:
        event = self.event(row)
        return all(matches(event) for matches in self._of_events)

    def _records(self) -> dict[int, Sequence[int]]:
        """Return the records that match; those that only refer to one match as it does."""
        query = self._query
        found: dict[int, list[int]] = defaultdict(list)
        matched: dict[str | None, bool] = {}
        judged = _Judged(self._of_containers)
        looked = self._journal.containers(
            since=query.since,
            until=query.until,
            container=query.container,
            image=query.image,
            pod=query.pod,
        )
        for done, one in enumerate(looked):
            matched[one.start_id] = judged(one.line)
            if matched[one.start_id]:
                found[one.file].append(one.id)
            if done % 1000 == 0:
                self._progress(done, 0)
        selected = Selection(
            query.since, query.until, container=query.container, image=query.image, pod=query.pod
        )
        for file, key, start_id in self._journal.references(selected):
            if start_id not in matched:
                whole = self._journal.whole(start_id or "")
                matched[start_id] = whole is not None and judged(whole)
            if matched[start_id]:
                found[file].append(key)
        self._progress(1, 1)
        return dict(found)

    def _whole_of(self, start_id: str) -> Container | None:
        if start_id not in self._whole:
            if len(self._whole) > _REMEMBERED:
                self._whole.clear()
            text = self._journal.whole(start_id)
            self._whole[start_id] = None if text is None else msgspec.json.decode(text, type=Container)
        return self._whole[start_id]


class Ranked(NamedTuple):
    """A line of a ranking."""

    number: int
    what: str


_NAME = (
    "CASE WHEN c.pod IS NOT NULL THEN coalesce(c.namespace || '/', '') || c.pod || coalesce(' ' || c.name, '') "  # noqa: E501
    "ELSE coalesce(c.name, c.container_id) END"
)
_FROM = (
    "FROM events e JOIN containers c ON c.id = e.container "
    "WHERE e.type IN ({}) AND e.time >= ? AND e.time < ? "
)
_TOP: dict[str, tuple[str, Sequence[str]]] = {
    "restarts": (f"SELECT {_NAME}, count(*) {_FROM} GROUP BY 1", ["creating"]),
    "started by": (
        "SELECT coalesce(c.started_by, '?') || ', uid ' || coalesce(c.uid, '?'), count(*) "
        f"{_FROM} GROUP BY 1",
        ["creating"],
    ),
    "out of memory": (f"SELECT {_NAME}, count(*) {_FROM} GROUP BY 1", ["oom"]),
    "denied": (f"SELECT {_NAME}, count(*) {_FROM} GROUP BY 1", ["denied"]),
    "images": (
        f"SELECT coalesce(c.image, '?'), count(*) {_FROM} GROUP BY 1",
        ["creating"],
    ),
}
RANKINGS = (*_TOP, "slowest holds")


def top(journal: Journal, query: Query, size: int) -> dict[str, list[Ranked]]:
    """Return what happened most, and the slowest holds (in microseconds). Raises JournalError."""
    found = {name: _most(journal, query, *_TOP[name], size) for name in _TOP}
    found["restarts"] = [one for one in found["restarts"] if one.number > 1]
    return found | {"slowest holds": _slowest(journal, query, size)}


def _most(journal: Journal, query: Query, sql: str, types: Iterable[str], size: int) -> list[Ranked]:
    counts: Counter[str] = Counter()
    for _, (what, count) in journal.query(sql.format(_numbers(types)), _times(query)):
        counts[what] += count
    return [Ranked(count, what) for what, count in counts.most_common(size)]


def _slowest(journal: Journal, query: Query, size: int) -> list[Ranked]:
    sql = (
        f"SELECT e.held, e.type, {_NAME}, e.time {_FROM} AND e.held IS NOT NULL ORDER BY e.held DESC LIMIT ?"
    ).format(_numbers(["creating", "created", "started", "exec", "denied"]))
    rows: list[tuple[Any, ...]] = [row for _, row in journal.query(sql, (*_times(query), size))]
    rows.sort(reverse=True)
    return [Ranked(held, f"{TYPES[kind]} {name}") for held, kind, name, _ in rows[:size]]


def _times(query: Query) -> tuple[int, int]:
    since = -(1 << 62) if query.since is None else query.since
    return since, 1 << 62 if query.until is None else query.until


def _numbers(types: Iterable[str]) -> str:
    return ", ".join(str(type_number(name)) for name in types)
