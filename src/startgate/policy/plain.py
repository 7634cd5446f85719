"""What the CEL library says, in plain words. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from startgate.events import Event
from startgate.fields import fields_of, records_of

# Of the CEL specification, and of the extensions that `engine` loads.
FUNCTIONS = tuple(
    "size int uint double string bytes bool timestamp duration type dyn has matches contains "
    "startsWith endsWith all exists exists_one map filter getFullYear getMonth getDayOfYear "
    "getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds getMilliseconds charAt format "
    "indexOf join lastIndexOf lowerAscii quote replace reverse split substring trim upperAscii distinct "
    "flatten lists.range slice sort sortBy sets.contains sets.equivalent sets.intersects math.greatest "
    "math.least math.abs".split()
)

_PLACE = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (?:Syntax error: )?([^\n]*)")
_STATUS = re.compile(r"\A[A-Z_]+: |\s*\[[A-Z_]+\]\Z")


def located(message: str, source: str) -> tuple[str, int, int]:
    """Return the sentence, the line and the column of the library's first error."""
    found = _PLACE.search(message)
    if not found or found[1].startswith("-"):
        return _whole(message), 1, 1
    line, column = int(found[1]), int(found[2])
    text, shift = _sentence(found[3].removesuffix(" [INVALID_ARGUMENT]"), _at(source, line, column))
    return text, line, column + shift


def why(message: str) -> str:
    """Return why there is no value."""
    text = _STATUS.sub("", message.splitlines()[0] if message else "no reason given")
    for pattern, sentence in _REASONS:
        if found := re.search(pattern, text):
            return found.expand(sentence)
    return text


def type_name(name: str) -> str:
    """Return a type's name as people say it."""
    name = re.sub(r"wrapper\((\w+)\)", r"\1", name.replace("null_type", "null"))
    return re.sub(r"\bstartgate\.(\w+)", lambda found: found[1].lower(), name)


UNKNOWN = ": "
"""Between a field that is not known, and why: see `presence`."""

_REASONS = (
    (rf'Key not found in map : "(\w+\.\w+){UNKNOWN}(.*)"', r"\1 \2"),
    (r'No value with name "\w+\.(\w+)"', r"the event has no \1"),
    (r"Key not found in map : (.*)", r"there is no \1"),
    (r"Index error: index=(-?\d+)", r"there is no item \1"),
    (r"budget exceeded", r"its loops take more than 10000 steps"),
    (r"No matching overloads found : _?(\S+?)_?\(.*\bnull_type\b.*\)", r"what \1 is asked of is not known"),
)


def _whole(message: str) -> str:
    if "recursion" in message:
        return "nested too deeply"
    return _STATUS.sub("", message.splitlines()[0]) if message else "it does not compile"


def _at(source: str, line: int, column: int) -> str:
    lines = source.split("\n")
    return lines[line - 1][column - 1 : column] if line <= len(lines) else ""


def _sentence(text: str, at: str) -> tuple[str, int]:
    """Return the sentence, and how far its word is from where the library points to, at a dot or bracket."""
    if found := re.match(r"undefined field '(.+)' not found in struct '(?:\w+\.)*(\w+)'", text):
        record = next(each for each in records_of(Event) if each.__name__ == found[2])
        return _unknown(f"field of {found[2].lower()}", found[1], fields_of(record)), 1
    if found := re.match(r"undeclared reference to '(.+?)'", text):
        if at == "(":
            return _unknown("function", found[1], FUNCTIONS), -len(found[1])
        first, dot, _ = found[1].partition(".")
        return _unknown("name", first, fields_of(Event)), -found[1].rfind(".") if dot else 0
    if found := re.match(r"found no matching overload for '(.+)' applied to '\((.*)\)'", text):
        operator = found[1].strip("_@").replace("_", "")
        return f"{operator} does not take {' and '.join(type_name(found[2]).split(', '))}", 0
    return text, 0


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), 1)
    return f"unknown {kind} {name}" + (f": did you mean {nearest[0]}?" if nearest else "")
