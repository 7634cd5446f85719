"""The runtime binaries that engines are told to use: from their configuration files."""

from __future__ import annotations

import glob
import json
import logging
import os
import tomllib
from collections.abc import Callable, Iterator

from startgate.engines import ENGINES
from startgate.engines.configuration import Table, table
from startgate.kernel import files

log = logging.getLogger(__name__)

_LIMIT = 1 << 20


def binaries(host: str) -> list[str]:
    """Return the paths, on the host, of the binaries that its engines are told to use.

    Those that are named without a directory are found where all others are. Never raises.
    """
    configurations = _Files(host)
    found = [path for engine in ENGINES for path in engine.configured(configurations)]
    return list(dict.fromkeys(path for path in found if isinstance(path, str) and _is_path(path)))


def _is_path(text: str) -> bool:
    """JSON may hold a NUL, or half a surrogate pair: no path can."""
    return text.startswith("/") and text.isprintable()


class _Files:
    """See engines.configuration.Configurations."""

    def __init__(self, host: str) -> None:
        self._host = host

    def json(self, *patterns: str) -> Iterator[tuple[str, Table]]:
        return self._read(patterns, json.loads)

    def toml(self, *patterns: str) -> Iterator[tuple[str, Table]]:
        return self._read(patterns, tomllib.loads)

    def _read(self, patterns: tuple[str, ...], parse: Callable[[str], object]) -> Iterator[tuple[str, Table]]:
        for pattern in patterns:
            for path in sorted(glob.glob(self._host.rstrip("/") + pattern)):
                try:
                    yield "/" + os.path.relpath(path, self._host), table(parse(_text(path)))
                except (OSError, ValueError, RecursionError) as error:
                    log.warning("%s: the runtimes that it names are not watched: %s", path, error)


def _text(path: str) -> str:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return files.read_regular(root, path, _LIMIT).decode()
    finally:
        os.close(root)
