"""What rules would have said: asked of the records of weeks, as the gates were told them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from startgate.events import Deny, Event, EventType, Note
from startgate.journal.history import Query, Search
from startgate.journal.reader import Journal, Row
from startgate.policy.patch import Patch
from startgate.policy.rules import Policy

_REMEMBERED = 20_000
_DENIED_AT: dict[str, EventType] = {"command": "creating", "exec": "exec"}
"""What a refused event would have been, by its gate; others: `created`."""


class Said(msgspec.Struct):
    """What one rule would have said, how often, and of whom last."""

    rule: str
    event: str
    result: str
    times: int = 0
    message: str = ""
    container: str = ""
    image: str | None = None
    time: str = ""


class Replay(msgspec.Struct):
    """What a policy would have said in all."""

    starts: int = 0
    execs: int = 0
    refused: int = 0
    """Of both: where any rule would have denied."""
    distinct: int = 0
    """How often rules were asked: what is the same is judged once."""
    rules: list[Said] = []


class _Asked(msgspec.Struct):
    """What a verdict depends on."""

    gate: msgspec.Raw
    container: msgspec.Raw
    process: msgspec.Raw = msgspec.Raw(b"")
    type: msgspec.Raw = msgspec.Raw(b"")


class _Word(msgspec.Struct, frozen=True):
    rule: str
    event: str
    result: str
    message: str


def replay(journal: Journal, policy: Policy, query: Query) -> Replay:
    """Judge all starts, and all execs if there are rules for them. Raises JournalError."""
    judge = _Judge(Search(journal, query), policy)
    found, said = Replay(), OrderedDict[_Word, Said]()
    for row in judge.rows():
        event, words = judge(row)
        if event.type == "exec":
            found.execs += 1
        else:
            found.starts += event.type == "creating"
        found.refused += any(word.result == "deny" for word in words)
        for word in words:
            one = said.setdefault(word, Said(word.rule, word.event, word.result, message=word.message))
            one.times += 1
            container = event.container
            if container:
                one.container, one.image = container.name or container.id, container.image
            one.time = event.time
    found.distinct, found.rules = judge.distinct, list(said.values())
    return found


class _Judge:
    def __init__(self, search: Search, policy: Policy) -> None:
        self._search = search
        self._policy = policy
        self._known: OrderedDict[tuple[bytes, ...], tuple[Event, list[_Word]]] = OrderedDict()
        self._decoder = msgspec.json.Decoder(_Asked)
        self.distinct = 0

    def rows(self) -> Iterator[Row]:
        """Yield what rules are asked about."""
        on = {event for rule in self._policy.rules for event in rule.on}
        types = ("creating", "created", "denied", *(("exec",) if "exec" in on else ()))
        return self._search.only(types)

    def __call__(self, row: Row) -> tuple[Event, list[_Word]]:
        """Return the event as it was asked about, and what rules say of it."""
        asked = self._decoder.decode(row.line)
        key = tuple(map(bytes, msgspec.structs.astuple(asked)))
        if key not in self._known:
            self._known[key] = self._judge(row)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        event, words = self._known[key]
        return event, words

    def _judge(self, row: Row) -> tuple[Event, list[_Word]]:
        self.distinct += 1
        event = self._search.event(row)
        if event.type == "denied":
            event = replace(event, type=_DENIED_AT.get(event.gate, "created"))
        event = replace(event, held_us=None, reason=None, policy=())
        verdicts = self._policy.judge(event)
        return event, [_word(rule.name, event.type, word) for rule, said in verdicts for word in said]


def _word(rule: str, event: str, said: Deny | Note | Patch) -> _Word:
    if isinstance(said, Note):
        return _Word(rule, event, said.action, said.message)
    return _Word(rule, event, "deny" if isinstance(said, Deny) else "patch", said.message or "")
