"""Is a JSON document read in the same way by all? Pure.

Of a key that is there twice crun takes the first, Go and msgspec the last; and Go takes a key in
any case ("Mounts"), crun as it is written. What is judged would not be what runs: so a document
with such keys is refused, whoever reads it.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec.inspect import (
    CollectionType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from startgate.errors import BundleError
from startgate.foreign import UNDECODABLE

_KEY = b'":'
# A key whose colon stands apart, and texts that are written in other words: then it is counted slowly.
_UNUSUAL = (b'" :', b'"\t:', b'"\n:', b'"\r:', b"\\u0022", b"\\u003a", b"\\u003A")


class _Shape(NamedTuple):
    """The keys of a struct, and what is below them."""

    below: dict[str, _Shape | None]
    folded: frozenset[str]


def expect_plain(data: bytes, kind: type[msgspec.Struct]) -> None:
    """Raises BundleError: a key is there twice, or one of `kind`'s in another case."""
    try:
        document = msgspec.json.decode(data)
    except UNDECODABLE as error:
        raise BundleError(f"it is not JSON: {error}") from error
    unusual = any(word in data for word in _UNUSUAL)
    if unusual or data.count(_KEY) != msgspec.json.encode(document).count(_KEY):
        _slowly(data)
    _check(document, _shape(kind))


def _slowly(data: bytes) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise BundleError(f"the key {twice!r} is there twice: runtimes read that in different ways")
        return made

    return json.loads(data, object_pairs_hook=pairs)


def _check(value: Any, shape: _Shape | None) -> None:
    if shape is None:
        return
    if isinstance(value, list):
        for item in value:
            _check(item, shape)
    elif isinstance(value, dict):
        for name, below in value.items():
            if name in shape.below:
                _check(below, shape.below[name])
            elif name.casefold() in shape.folded:
                raise BundleError(
                    f"the key {name!r} is in another case: runtimes read that in different ways"
                )


@cache
def _shape(kind: type[msgspec.Struct]) -> _Shape:
    return _of(type_info(kind)) or _Shape({}, frozenset())


def _of(kind: Type) -> _Shape | None:
    match kind:
        case StructType():
            below = {field.encode_name: _of(field.type) for field in kind.fields}
            return _Shape(below, frozenset(map(str.casefold, below)))
        case CollectionType():
            return _of(kind.item_type)
        case UnionType():
            return next((shape for each in kind.types if (shape := _of(each))), None)
    return None
