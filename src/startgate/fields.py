"""The fields of the record, read from the types of `events.py`: its one definition.

What rules may ask for, the JSON schema and the table of docs/events.md follow from it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple, cast

import msgspec
from msgspec import inspect

Kind = Literal["text", "number", "fraction", "truth", "record"]
Shape = Literal["one", "list", "map"]

_KINDS: dict[type[inspect.Type], Kind] = {
    inspect.StrType: "text",
    inspect.IntType: "number",
    inspect.FloatType: "fraction",
    inspect.BoolType: "truth",
    inspect.StructType: "record",
}


class Field(NamedTuple):
    """A field of a record."""

    name: str
    kind: Kind
    shape: Shape = "one"
    """`map`: by a text."""
    record: type[msgspec.Struct] | None = None
    """The fields within, where the kind is `record`."""
    optional: bool = False
    """It may be null: not known, or not there."""
    known: str = ""
    """What `events.py` says of when it is known."""
    words: tuple[str, ...] = ()
    """All the texts that it can hold; none: any."""
    path: bool = False
    """Is it an absolute path in its shortest form?"""


@cache
def fields_of(record: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the fields of a record by their names in JSON, but for those whose content may be anything."""
    described = cast(inspect.StructType, inspect.type_info(record))
    found = (_field(each.encode_name, each.type) for each in described.fields)
    return {field.name: field for field in found if field}


def records_of(record: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Yield the record and all those within it, each once, the inner ones first."""
    seen: dict[type[msgspec.Struct], None] = {}

    def visit(each: type[msgspec.Struct]) -> None:
        for field in fields_of(each).values():
            if field.record and field.record not in seen:
                visit(field.record)
        seen[each] = None

    visit(record)
    yield from seen


def described(record: type[msgspec.Struct], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield each field below a record as expressions name it, and what it is, in words."""
    for field in fields_of(record).values():
        path = before + field.name
        yield path, _in_words(field)
        if field.record:
            below = {"one": ".", "list": "[].", "map": "[name]."}[field.shape]
            yield from described(field.record, path + below)


def _in_words(field: Field) -> str:
    kind = {"truth": "true or false"}.get(field.kind, field.kind)
    words = f"{field.shape} of {kind}s" if field.shape != "one" else kind
    if field.words:
        words += f": {', '.join(field.words[:8])}{', ...' if len(field.words) > 8 else ''}"
    if field.optional:
        words += "; may be missing"
    return words + ("; known at `created`" if field.known == "created" else "")


def _field(name: str, described: inspect.Type) -> Field | None:
    """Return the field; None where its content may be anything."""
    field = Field(name, "text")
    inner: inspect.Type | None
    while True:
        match described:
            case inspect.Metadata(type=inner):
                field, described = _annotated(field, described), inner
            case inspect.UnionType(types=types) if (inner := _but_for_null(types)) is not None:
                field, described = field._replace(optional=True), inner
            case inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner):
                field, described = field._replace(shape="list"), inner
            case inspect.DictType(value_type=inner):
                field, described = field._replace(shape="map"), inner
            case _:
                break
    return _whole(field, described)


def _annotated(field: Field, described: inspect.Metadata) -> Field:
    said = described.extra or {}
    return field._replace(**{name: said[name] for name in ("known", "words", "path") if name in said})


def _but_for_null(types: Sequence[inspect.Type]) -> inspect.Type | None:
    others = [each for each in types if not isinstance(each, inspect.NoneType)]
    return others[0] if len(others) == 1 < len(types) else None


def _whole(field: Field, described: inspect.Type) -> Field | None:
    if isinstance(described, inspect.LiteralType):
        return field._replace(words=tuple(map(str, described.values)))
    if (kind := _KINDS.get(type(described))) is None:
        return None
    record = described.cls if isinstance(described, inspect.StructType) else None
    return field._replace(kind=kind, record=record)
