"""What others wrote, and how much of it is taken into an event.

Config files, labels and command lines may be megabytes long; events are kept in queues and
sent to listeners. So each text is clipped, and each collection is cut to what fits in
`SIZE`; events say which (`truncated`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

T = TypeVar("T")

UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)
"""What msgspec raises on foreign bytes: the last two for deep nesting, and for no UTF-8."""

TEXT = 4096
"""Characters of the longest single text (an id, a path) in an event; a path has no more."""

SIZE = 256 << 10
"""Characters that one collection of an event may hold, `OVERHEAD` for each text included."""

OVERHEAD = 16


def utf8(text: str) -> str:
    """Replace what is no UTF-8 (os.fsdecode's surrogates): JSON and terminals take none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def clip(text: str) -> str:
    """Make a text UTF-8, and cut it to `TEXT` characters."""
    if len(text) > TEXT:
        text = text[: TEXT - 1] + "…"
    return text if text.isascii() else utf8(text)


def one_line(text: str) -> str:
    """Replace control characters: a terminal obeys them, a log is read by lines."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def json_line(value: object) -> bytes:
    """Return JSON in which whatever a terminal might obey (DEL, C1, U+202E, ...) is escaped: \\u202e."""
    data = msgspec.json.encode(value)
    if data.isascii() and b"\x7f" not in data:
        return data
    text = data.decode()
    return data if text.isprintable() else "".join(map(_escaped, text)).encode()


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def size(*texts: str) -> int:
    """Return what texts count in a collection."""
    return sum(map(len, texts)) + OVERHEAD * len(texts)


class Fitting:
    """Cuts the collections of one record; `cut` are the names of those that lost something."""

    def __init__(self) -> None:
        self._cut: list[str] = []

    @property
    def cut(self) -> tuple[str, ...]:
        """The names of what did not fit."""
        return tuple(self._cut)

    def words(self, name: str, words: Iterable[str]) -> tuple[str, ...]:
        """Return the first words, as many as fit: a list with holes would be another."""
        words = tuple(words)
        if size(*words) > SIZE:
            words = tuple(self._fit(name, words, size, holes=False))
        return words if "".join(words).isascii() else tuple(map(utf8, words))

    def pairs(self, name: str, pairs: Mapping[str, str]) -> dict[str, str]:
        """Return the pairs that fit, whole."""
        kept = self._fit(name, pairs.items(), lambda pair: size(*pair))
        return {utf8(key): utf8(value) for key, value in kept}

    def items(self, name: str, items: Iterable[T], size_of: Callable[[T], int]) -> tuple[T, ...]:
        """Return the items that fit, whole."""
        return tuple(self._fit(name, items, size_of))

    def _fit(
        self, name: str, items: Iterable[T], size_of: Callable[[T], int], *, holes: bool = True
    ) -> list[T]:
        kept, left = [], SIZE
        for item in items:
            needed = size_of(item)
            if needed <= left:
                kept.append(item)
                left -= needed
                continue
            if name not in self._cut:
                self._cut.append(name)
            if not holes or left < SIZE // 16:  # full: what else would fit is not worth looking for
                break
        return kept
