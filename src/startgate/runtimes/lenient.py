"""Command lines of runtimes that nobody knows, and of newer ones: all grammars at once. Pure.

Whether an option that is in no list takes a value is not known: where that matters the line is in doubt.
"""

from __future__ import annotations

from typing import NamedTuple

from startgate.runtimes.options import Level, Takes


class Call(NamedTuple):
    """What follows a command."""

    options: list[tuple[str, str]]
    names: list[str]
    """The container's id, and what follows it."""
    doubt: str | None = None
    """An option by which any of the names may be the id."""


class Reading:
    """The options of one level of a command line, read word by word."""

    def __init__(self, words: list[str], level: Level) -> None:
        self.words = words
        self.level = level
        self.found: list[tuple[str, str]] = []
        self.unknown: list[str] = []
        """Options without a value in the same word, of which nobody knows whether the next word is theirs."""

    def read(self, at: int) -> int:
        """Read options from `at` on; return the index of the first word that is none."""
        while at < len(self.words) and (word := self.words[at]).startswith("-") and word != "-":
            at += 1
            if word == "--":
                break
            for name, attached in _split(word, self.level):
                option, value = self.level.get(name), attached
                if value is None and option and option.takes is Takes.VALUE and at < len(self.words):
                    value, at = self.words[at], at + 1
                elif value is None and option is None:
                    self.unknown.append(name)
                self.found.append((option.name if option else name, value or ""))
        return at


def call(words: list[str], level: Level, *, executes: bool, kills: bool) -> Call:
    """Split what follows the command: options may stand on both sides of the id."""
    reading = Reading(words, level)
    at = reading.read(0)
    if executes:  # what follows the id is the container's, options too
        rest = words[at + 1 :]
        names = words[at : at + 1] + (rest[1:] if rest[:1] == ["--"] else rest)  # youki's clap takes it
        return Call(reading.found, names, reading.unknown[0] if reading.unknown else None)
    names, certain = [], []  # all words that are no options; those that are no option's value either
    while at < len(words):
        names.append(words[at])
        if at == 0 or words[at - 1] not in reading.unknown:
            certain.append(words[at])
        at = reading.read(at + 1)
    if kills:
        return Call(reading.found, names)
    # One name is all they take: so a word that may be an option's value is one if there is another.
    if certain or len(names) < 2:
        return Call(reading.found, certain[-1:] or names)
    return Call(reading.found, names, reading.unknown[0])


def _split(word: str, level: Level) -> list[tuple[str, str | None]]:
    """Split one word into options; the value is None where none is attached."""
    name, equals, value = word.partition("=")
    attached = value if equals else None
    if name.startswith("--"):
        return [(name, attached)]
    if len(name) > 2 and f"-{name}" in level:
        return [(f"-{name}", attached)]  # Go's flag package (runsc): -root is --root
    if equals and len(name) == 2:
        return [(name, attached)]
    return _cluster(word, level) or [(name, attached)]


def _cluster(word: str, level: Level) -> list[tuple[str, str | None]]:
    """Split -dbBUNDLE, as getopt does. Empty when a letter is no option: then it is a long one."""
    found: list[tuple[str, str | None]] = []
    for index, letter in enumerate(word[1:], 2):
        option = level.get(f"-{letter}")
        if option is None:
            return []
        if option.takes is not Takes.NOTHING:
            return [*found, (f"-{letter}", word[index:] or None)]
        found.append((f"-{letter}", None))
    return found
