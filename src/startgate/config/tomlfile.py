"""TOML files, with errors that name file, line, column and the nearest known key.

tomllib tells no positions of what it has read: keys are looked up in the text again.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from startgate.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)

Reader = Callable[[str], str]
"""Returns what is in the file of a path. Raises UsageError."""

_LIMIT = 1 << 20
# Strings of several lines are one token, so that no header or key is found within them.
_TOKEN = re.compile(
    r'"""(?:\\.|.)*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*'
    r"|(?m:^[ \t]*\[\[?(?P<header>[^\]\n]*)\]\]?)|(?m:^[ \t]*(?P<key>[A-Za-z0-9_-]+)[ \t]*=[ \t]*)",
    re.DOTALL,
)
_PLACE = re.compile(r"\$\.?(\w*)")


@dataclass(frozen=True)
class Position:
    """A place in a file, both from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class TomlFile:
    """A file that was read, its tables, and where they stand in it."""

    name: str
    text: str
    tables: dict[str, Any]
    reader: Reader = field(repr=False)
    """How the files that it names are read."""

    def error(self, message: str, position: Position | None = None) -> UsageError:
        """Return the error that names the file, and the place where it is known."""
        place = f":{position.line}:{position.column}" if position else ""
        return UsageError(f"{self.name}{place}: {message}")

    def find(self, key: str, table: str = "", index: int = 0) -> Position | None:
        """Return where the value of a key begins: in the `index`-th table of that name.

        Keys of a table's own tables (`[rule.patch]` below `[[rule]]`) are found too. No key:
        where the table's name stands.
        """
        header, seen = "", -1
        inside = not table
        for token in _TOKEN.finditer(self.text):
            if token["header"] is not None:
                header = token["header"].strip()
                seen += header == table
                inside = bool(table) and seen == index and f"{header}.".startswith(f"{table}.")
                below = "" if header == table else header.removeprefix(f"{table}.").partition(".")[0]
                if (inside or not table) and key == below:
                    return self._at(token.start("header"))
            elif token["key"] == key and inside:
                return self._at(token.end())
        return None

    def decode(self, values: Mapping[str, Any], kind: type[T], table: str = "", index: int = 0) -> T:
        """Convert a table to a struct. Raises UsageError, which names the place."""
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        for key in values:
            if key not in known:
                raise self.error(unknown_key(key, known), self.find(key, table, index))
        try:
            return msgspec.convert(values, kind)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at ")
            path = _PLACE.match(place.strip("`"))
            named = re.search(r"`(\w+)`", message)  # `x` is missing, or a struct's own complaint
            key = path[1] if path and path[1] else named[1] if named else ""
            where = f"{key}: " if path and path[1] else ""
            position = self.find(key, table, index) or self.find("", table, index)
            raise self.error(f"{where}{message}", position) from error

    def _at(self, offset: int) -> Position:
        before = self.text[:offset]
        return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the sentence about a key that is none, with the nearest one that is."""
    known = list(known)
    nearest = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    return f"unknown key {key}: {hint}"


def read_any(path: str) -> str:
    """Return the text of a file. Raises UsageError: it can't be read, is too large, or no UTF-8."""
    return _read(path, lambda fd: None)


def read_trusted(path: str) -> str:
    """As `read_any`. Raises UsageError also unless only root may write it, or put another in its place."""
    return _read(path, lambda fd: check_trusted(path, fd))


def _read(path: str, check: Callable[[int], None]) -> str:
    try:
        # O_NONBLOCK: a FIFO would wait for its writer
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path}: not a regular file")
            check(file.fileno())
            data = file.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise UsageError(f"{path}: larger than {_LIMIT} bytes")
        return data.decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8, at byte {error.start}") from error


def parse(text: str, name: str, reader: Reader = read_any) -> TomlFile:
    """Parse the text of a file. Raises UsageError, which names the place."""
    try:
        return TomlFile(name, text, tomllib.loads(text), reader)
    except tomllib.TOMLDecodeError as error:
        found = re.match(r"(.*) \(at line (\d+), column (\d+)\)$", str(error))
        if found:
            raise UsageError(f"{name}:{found[2]}:{found[3]}: {found[1]}") from error
        end = text.rstrip("\n").count("\n") + 1
        raise UsageError(f"{name}:{end}:1: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply") from error


def read(path: str, reader: Reader = read_any) -> TomlFile:
    """Read a file. Raises UsageError: it can't be read, or is no TOML."""
    return parse(reader(path), path, reader)


def check_trusted(path: str, fd: int) -> None:
    """Raises UsageError unless only root may write the file, or put another in its place."""
    directory = os.path.dirname(path) or "."
    _check_owner(path, os.fstat(fd), 0)
    # A ConfigMap's directory has mode 0777; it is mounted read-only, and lies in one that is root's alone.
    anyone = stat.S_IWGRP | stat.S_IWOTH if _is_read_only_volume(directory) else stat.S_ISVTX
    _check_owner(directory, os.stat(directory), anyone)


def _is_read_only_volume(directory: str) -> bool:
    """Not where the whole root is read-only for us alone, as in the systemd unit."""
    return os.path.ismount(directory) and bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _check_owner(path: str, status: os.stat_result, unless: int) -> None:
    """Raises UsageError unless only root may write it; `unless` is a mode bit that makes it safe."""
    if status.st_uid != 0:
        raise UsageError(
            f"{path} belongs to uid {status.st_uid}: it decides what root does, so make it root's"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & unless:
        raise UsageError(f"{path} may be written by others than root: chmod go-w {path}")
