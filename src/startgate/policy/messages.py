"""The record as protobuf messages, which is how CEL knows types. Made when it is first needed.

There are two forms of the schema. Expressions are *checked* where an optional text is a
wrapper, which may be compared with null as well as used as a text. They are *evaluated*
where it is a plain text, which reads as "" where it is missing: so `m.resolved.startsWith("/etc")`
has a value for every mount. Optional numbers stay null: 0 is a pid, an exit code, root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

from startgate.events import Event
from startgate.fields import Field, Kind, fields_of, records_of

PACKAGE = "startgate"

Value = Callable[[Any], Any]
"""Makes what a message takes of what a record holds."""

_LARGEST = (1 << 63) - 1

_PROTO = descriptor_pb2.FieldDescriptorProto
_SCALARS: dict[Kind, tuple[int, str]] = {
    "text": (_PROTO.TYPE_STRING, "StringValue"),
    "number": (_PROTO.TYPE_INT64, "Int64Value"),
    "fraction": (_PROTO.TYPE_DOUBLE, "DoubleValue"),
    "truth": (_PROTO.TYPE_BOOL, "BoolValue"),
}


def pool(*, checked: bool) -> Any:
    """Return the descriptors of all records, in the form that is `checked`, or evaluated."""
    file = descriptor_pb2.FileDescriptorProto(
        name="startgate.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for record in records_of(Event):
        message = file.message_type.add(name=record.__name__)
        for field in fields_of(record).values():
            _declare(message, field, checked)
    made = descriptor_pool.DescriptorPool()
    made.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    made.AddSerializedFile(file.SerializeToString())
    return made


def wrapper(kind: Kind) -> str:
    """Return the name of the message that holds a value which may be null."""
    return f"google.protobuf.{_SCALARS[kind][1]}"


def _declare(message: Any, field: Field, checked: bool) -> None:
    made = message.field.add(name=field.name, number=len(message.field) + 1, label=_PROTO.LABEL_OPTIONAL)
    if field.shape == "map":
        name = "".join(part.title() for part in field.name.split("_")) + "Entry"
        entry = message.nested_type.add(name=name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=_PROTO.TYPE_STRING, label=_PROTO.LABEL_OPTIONAL)
        _set_type(entry.field.add(name="value", number=2, label=_PROTO.LABEL_OPTIONAL), field)
        made.type, made.type_name = _PROTO.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{name}"
        made.label = _PROTO.LABEL_REPEATED
        return
    _set_type(made, field)
    if field.shape == "list":
        made.label = _PROTO.LABEL_REPEATED
    elif field.optional and field.kind != "record":
        if checked or field.kind != "text":
            made.type, made.type_name = _PROTO.TYPE_MESSAGE, f".{wrapper(field.kind)}"
        else:
            made.proto3_optional, made.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")


def _set_type(made: Any, field: Field) -> None:
    if field.record:
        made.type, made.type_name = _PROTO.TYPE_MESSAGE, f".{PACKAGE}.{field.record.__name__}"
    else:
        made.type = _SCALARS[field.kind][0]


class Messages(NamedTuple):
    """The descriptors for evaluating, and the messages' classes."""

    pool: Any
    classes: dict[type[msgspec.Struct], Any]


@cache
def messages() -> Messages:
    """Return the form for evaluating."""
    made = pool(checked=False)
    classes = {
        record: message_factory.GetMessageClass(made.FindMessageTypeByName(f"{PACKAGE}.{record.__name__}"))
        for record in records_of(Event)
    }
    return Messages(made, classes)


def converted(value: Any, names: Iterable[str] | None) -> Any:
    """Return what CEL takes of a field of the event; `names` are the fields within that are asked for.

    Raises ValueError: a text is no UTF-8.
    """
    if isinstance(value, tuple):
        return [converted(item, None) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    message = messages().classes[type(value)]
    try:
        return message(**_values(value, names))
    except UnicodeError:
        raise
    except ValueError:  # RLIM_INFINITY is larger than CEL's numbers
        return message(**_limited(_values(value, names)))


def _values(record: msgspec.Struct, names: Iterable[str] | None) -> dict[str, Any]:
    attributes = _attributes(type(record))
    wanted = attributes if names is None else [name for name in names if name in attributes]
    return _wrap(
        type(record), {name: msgspec.to_builtins(getattr(record, attributes[name])) for name in wanted}
    )


def _limited(value: Any) -> Any:
    """Return the same with no number larger than CEL has."""
    if isinstance(value, dict):
        return {key: _limited(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_limited(each) for each in value]
    return max(-_LARGEST - 1, min(value, _LARGEST)) if type(value) is int else value


def _wrap(record: type[msgspec.Struct], values: dict[str, Any]) -> dict[str, Any]:
    """Put what may be null into wrappers, and take away what CEL has no type for, in place."""
    for name, wrap in _wraps(record):
        value = values.pop(name, None)
        if wrap and value is not None:
            values[name] = wrap(value)
    return values


@cache
def _attributes(record: type[msgspec.Struct]) -> dict[str, str]:
    """Return the names of a record's attributes, by those in JSON."""
    pairs = zip(record.__struct_encode_fields__, record.__struct_fields__, strict=True)
    return {name: attribute for name, attribute in pairs if name in fields_of(record)}


@cache
def _wraps(record: type[msgspec.Struct]) -> list[tuple[str, Value | None]]:
    """Return the names of the fields with wrappers, or with records that have some, and what makes them."""
    fields = fields_of(record)
    wraps = {name: _wrapping(fields[name]) for name in fields}
    names = (name for name in record.__struct_encode_fields__ if wraps.get(name, _wrapping))
    return [(name, wraps.get(name)) for name in names]


def _wrapping(field: Field) -> Value | None:
    record = field.record
    if record is None:
        nullable = field.shape == "one" and field.optional and field.kind != "text"
        return (lambda value: {"value": value}) if nullable else None
    if not _wraps(record):
        return None
    if field.shape == "one":
        return lambda values: _wrap(record, values)
    if field.shape == "list":
        return lambda items: [_wrap(record, values) for values in items]
    return lambda items: {key: _wrap(record, values) for key, values in items.items()}
