"""How runtimes split a command line's words into options and the rest. Pure.

runc has Go's flag package: -root is --root, a letter stands alone, flags take a value behind ``=``.
urfave/cli puts options that follow the id before it. crun has argp(3), that is getopt_long(3): letters
in one word, long names cut short; what follows the first word that is no option is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from startgate.runtimes.options import Level, Option, Takes

_TRUE = frozenset("1 t T TRUE true True".split())
_FALSE = frozenset("0 f F FALSE false False".split())


class Split(NamedTuple):
    """A command line that was read."""

    options: list[tuple[str, str]]
    """Long names with their values, in their order; "" for a flag that is set."""
    rest: list[str]


class Misread(Exception):
    """The runtime refuses this, as far as its options are known."""


def go(words: list[str], level: Level) -> Split:
    """Read options as Go's flag package does. Raises Misread."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(words) and len(word := words[at]) > 1 and word[0] == "-":
        at += 1
        if word == "--":
            break
        option = level.get(_go_name(word))
        _, equals, value = word.partition("=")
        if option is None:
            raise Misread(word)
        if option.takes is Takes.NOTHING:
            found.append((option.name, _go_flag(value) if equals else ""))
            continue
        if not equals:
            value, at = _next(words, at)
        found.append((option.name, value))
    return Split(found, words[at:])


def reordered(words: list[str], level: Level) -> list[str]:
    """Put options before the rest, as urfave/cli does: with what follows them, be it their value or not."""
    options: list[str] = []
    rest: list[str] = []
    may_be_value = False
    for at, word in enumerate(words):
        named = _go_name(word) in level
        if may_be_value and not named:
            may_be_value = False
            options.append(word)
        elif word == "--":
            return [*options, "--", *rest, *words[at + 1 :]]
        elif named:
            options.append(word)
            may_be_value = "=" not in word
        else:
            rest.append(word)
    return options + rest


def _go_name(word: str) -> str:
    """``-b``, ``--b=x``: -b; ``-root``: --root."""
    name = word.partition("=")[0]
    bare = name[2:] if name.startswith("--") else name[1:]
    if not name.startswith("-") or bare.startswith("-"):
        return ""
    return f"-{bare}" if len(bare) == 1 else f"--{bare}"


def _go_flag(value: str) -> str:
    if value not in _TRUE | _FALSE:
        raise Misread(value)
    return "" if value in _TRUE else "false"


def gnu(words: list[str], level: Level) -> Split:
    """Read options as getopt_long(3) does, up to the first word that is none. Raises Misread."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(words) and len(word := words[at]) > 1 and word[0] == "-":
        at += 1
        if word == "--":
            break
        for option, attached in _long(word, level) if word.startswith("--") else _letters(word, level):
            value = attached
            if value is None and option.takes is Takes.VALUE:
                value, at = _next(words, at)
            found.append((option.name, value or ""))
    return Split(found, words[at:])


def _long(word: str, level: Level) -> list[tuple[Option, str | None]]:
    name, equals, value = word.partition("=")
    option = level.get(name) or _only(option for long, option in level.items() if long.startswith(name))
    if equals and option.takes is Takes.NOTHING:
        raise Misread(word)
    return [(option, value if equals else None)]


def _only(options: Iterable[Option]) -> Option:
    """Return what an abbreviation means. To crun before 1.22 --rootless was another --root."""
    found = {option.name: option for option in options}
    if found.keys() == {"--root", "--rootless"}:
        del found["--rootless"]
    if len(found) != 1:
        raise Misread
    return next(iter(found.values()))


def _letters(word: str, level: Level) -> list[tuple[Option, str | None]]:
    """``-dbBUNDLE``: flags, and one option with the rest as its value."""
    found: list[tuple[Option, str | None]] = []
    for at, letter in enumerate(word[1:], 2):
        option = level.get(f"-{letter}")
        if option is None:
            raise Misread(word)
        if option.takes is not Takes.NOTHING:
            return [*found, (option, word[at:] or None)]
        found.append((option, None))
    return found


def _next(words: list[str], at: int) -> tuple[str, int]:
    if at >= len(words):
        raise Misread(words[-1])
    return words[at], at + 1
