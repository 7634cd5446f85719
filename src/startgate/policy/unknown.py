"""What is not known of an event, or not in full: it must not be taken for harmless. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from startgate.events import Container, Event, Process
from startgate.fields import fields_of
from startgate.policy.cel import EvaluationError

_NO_CONFIG = "is not known: its config.json could not be read"
_NO_RECORD = "is not known: its engine's record was not found"
_NO_PLACE = "are not known: where one of them leads can't be found out (FUSE, NFS, another mount namespace)"
_NOT_READ = "was not read"
_TOO_LARGE = "is too large to be told in full"


Unknown = tuple[tuple[str, str, str], ...]
"""Of an event: the record, the field and why it is not known. Mostly there is none."""


def of(event: Event) -> Unknown:
    """Return what is not known of an event."""
    records = (("container", event.container), ("process", event.process))
    return tuple((name, field, why) for name, record in records for field, why in _unknown(record))


def asked_for(unknown: Unknown, asked: Mapping[str, Collection[str] | None]) -> frozenset[tuple[str, str]]:
    """Return the fields that are asked for and not known, and why: the rest of a rule may decide.

    `asked`: for each of the event's fields those within; None: it is used as a whole. Raises
    EvaluationError where the whole of something is asked for that is known in part.
    """
    found = []
    for name, field, why in unknown:
        fields = asked.get(name, ())
        if fields is None:
            raise EvaluationError(f"{name}.{field} {why}")
        if field in fields:
            found.append((f"{name}.{field}", why))
    return frozenset(found)


def _unknown(record: Container | Process | None) -> Iterator[tuple[str, str]]:
    if record is None:
        return
    if isinstance(record, Container):
        if record.rootfs is None:
            fields = fields_of(Container)
            yield from ((name, _NO_CONFIG) for name in fields if fields[name].known != "command")
        yield from ((name, _NO_PLACE if name == "mounts" else _NO_RECORD) for name in record.unknown)
        if record.actual is None:
            yield "actual", _NOT_READ
    yield from ((name.partition(".")[0], _TOO_LARGE) for name in record.truncated)
