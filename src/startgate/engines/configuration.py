"""What is looked for in engines' configuration files, which name the runtimes that they execute. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Table = dict[str, Any]

_DEPTH = 20


class Configurations(Protocol):
    """The configuration files of a host. Patterns are glob(3)'s; what is no such file is left out."""

    def json(self, *patterns: str) -> Iterator[tuple[str, Table]]:
        """Yield path and content of each file."""

    def toml(self, *patterns: str) -> Iterator[tuple[str, Table]]:
        """Yield path and content of each file."""


def values(config: object, name: str, depth: int = 0) -> Iterator[object]:
    """Yield the values of all keys of that name, at any depth."""
    if not isinstance(config, dict) or depth > _DEPTH:
        return
    for key, value in config.items():
        if key == name:
            yield value
        yield from values(value, name, depth + 1)


def table(value: object) -> Table:
    """Return a table; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[Table]:
    """Return the tables within a table."""
    return [each for each in table(value).values() if isinstance(each, dict)]


def strings(value: object) -> list[str]:
    """Return the texts of a list."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
