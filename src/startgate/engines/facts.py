"""What an engine module may look at, and what it tells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from startgate.events import Container, Kubernetes
from startgate.foreign import UNDECODABLE

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """A container as its config.json describes it, and the files around it."""

    container: Container
    state_root: str
    """The runtime's state directory (``--root``): containerd and Docker have their own."""
    read: Callable[[str], bytes]
    """Read a file as the runtime's caller sees it. Raises OSError."""
    read_at: Callable[[str, int, int], bytes]
    """Read a part of a file, too: offset and size; less at its end. Raises OSError."""
    caller: Callable[[], list[str]]
    """The command line of the process that executed the runtime; empty if it is gone."""

    def line(self, path: str) -> str | None:
        """Read a file of one line; None when it is not there."""
        try:
            return os.fsdecode(self.read(path)).strip() or None
        except OSError:
            return None

    def decode(self, path: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """Read and decode a JSON file; None when it is not there, or not what it should be."""
        try:
            return decoder.decode(self.read(path))
        except (OSError, *UNDECODABLE):
            return None


@dataclass(frozen=True, slots=True)
class Known:
    """What an engine knows of a container."""

    engine: str
    name: str | None = None
    image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    kubernetes: Kubernetes | None = None
    hostname: str | None = None
    """Where config.json has none: a pod's container has its sandbox's."""
