"""What an engine module may look at, and what it tells."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from startgate.events import Container, Kubernetes
from startgate.foreign import UNDECODABLE

T = TypeVar("T")

LIMIT = 16 << 20
"""Bytes of the largest file of root's engines that is read whole."""
_TASK = re.compile(r"/io\.containerd\.runtime\.v[12]\.\w+/([^/]+)/([^/]+)")


class Files(Protocol):
    """The files that an engine writes, and nobody else can."""

    def read(self, path: str, limit: int) -> bytes:
        """Read a file. Raises OSError."""

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of a file; less at its end. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A container as its config.json describes it, and the files around it.

    What an engine's user can choose is in here, too: hostname, mounts, annotations, environment. An
    engine is told by the rest: where the bundle and the runtime's state are, who executed the
    runtime, and what the engine's own files have under the container's id.
    """

    container: Container
    state_root: str
    """The runtime's state directory (``--root``): containerd and Docker have their own."""
    files: Files
    caller: Callable[[], list[str]]
    """The command line of the process that executed the runtime; empty if it is gone."""
    limit: int = LIMIT
    """Bytes of the largest file that is read whole."""

    @property
    def bundle(self) -> str:
        """The bundle's path; empty where it is not known."""
        return self.container.bundle or ""

    @property
    def task_namespace(self) -> str | None:
        """The namespace in containerd, if a shim of it made the bundle: TASKS/NAMESPACE/ID."""
        found = _TASK.search(self.bundle)
        made = found and found.end() == len(self.bundle) and found[2] == self.container.id
        return found[1] if found and made else None

    @property
    def storage(self) -> str | None:
        """STORAGE/overlay-containers, if the bundle is STORAGE/overlay-containers/ID/userdata."""
        directory, _, last = self.bundle.rpartition("/")
        storage, _, identity = directory.rpartition("/")
        of_storage = last == "userdata" and identity == self.container.id
        return storage if of_storage and storage.endswith("-containers") else None

    def conmon(self) -> list[str]:
        """Return the command line of this container's conmon, if that executed the runtime."""
        words = self.caller()
        own = words and posixpath.basename(words[0]) == "conmon" and option(words, "-c") == self.container.id
        return words if own else []

    def line(self, path: str) -> str | None:
        """Read a file of one line; None when it is not there."""
        try:
            return os.fsdecode(self.files.read(path, self.limit)).strip() or None
        except OSError:
            return None

    def decode(self, path: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """Read and decode a JSON file; None when it is not there, or not what it should be."""
        try:
            return decoder.decode(self.files.read(path, self.limit))
        except (OSError, *UNDECODABLE):
            return None


class Image(NamedTuple):
    """An image, as its engine knows it. None: it could not be found out; empty: there is none."""

    text: str | None = None
    """As the engine shows it."""
    reference: str | None = None
    id: str | None = None
    digest: str | None = None


NO_IMAGE, UNKNOWN_IMAGE = Image("", "", "", ""), Image()


NOT_COUNTED = -1
"""By this engine: restarts."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an engine knows of a container. None: it could not be found out; empty: there is none."""

    engine: str
    name: str | None = None
    image: Image = UNKNOWN_IMAGE
    labels: Mapping[str, str] | None = None
    kubernetes: Kubernetes | None = None
    """None: it is of no pod, unless `pod_is_unknown`."""
    hostname: str | None = None
    """Where config.json has none: a pod's container has its sandbox's."""
    restarts: int | None = NOT_COUNTED
    """How often the engine had restarted it before this start."""
    pod_is_unknown: bool = False
    """It is of a pod, or may be, and what was found does not tell which."""


def option(words: list[str], name: str) -> str | None:
    """Return what follows an option on a command line."""
    return words[words.index(name) + 1] if name in words[:-1] else None


def text_map(data: str | bytes | None) -> dict[str, str] | None:
    """Decode a JSON object of texts; None where it is none."""
    try:
        return _texts.decode(data) if data else None
    except UNDECODABLE:
        return None


_texts = msgspec.json.Decoder(dict[str, str])
