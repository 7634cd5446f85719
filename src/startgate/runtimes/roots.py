"""The state directories of this host's runtimes: the usual ones, and what engines were told."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator

import msgspec

from startgate.engines import ENGINES
from startgate.foreign import UNDECODABLE
from startgate.runtimes import state

# Patterns of glob(3). containerd and Docker have one directory for each namespace.
_PATTERNS = (
    *(kind.root for kind in state.FLAVOURS),
    *(f"/run/user/0/{kind.name}" for kind in state.FLAVOURS),
    *(pattern for engine in ENGINES for pattern in engine.state_roots),
)

SHIM = "containerd-shim"
CONMON = "conmon"


class _ShimOptions(msgspec.Struct):
    """options.json of containerd-shim-runc-v2, in the bundle of each of its containers."""

    root: str = ""


_options = msgspec.json.Decoder(_ShimOptions)


def usual(host: str) -> list[str]:
    """Return the usual state directories that exist, as paths on the host."""
    found = (path for pattern in _PATTERNS for path in glob.glob(os.path.join(host, pattern.lstrip("/"))))
    return ["/" + os.path.relpath(path, host) for path in found if os.path.isdir(path)]


def of_shim(command: list[str], options: bytes) -> str | None:
    """Return the state directory of a shim: its options' root, and its namespace below."""
    try:
        root = _options.decode(options).root
    except UNDECODABLE:
        return None
    namespace = dict(itertools.pairwise(command)).get("-namespace")
    return state.canonical(os.path.join(root, namespace)) if root.startswith("/") and namespace else None


def of_conmon(command: list[str]) -> str | None:
    """Return the state directory that a conmon gives its runtime (``--runtime-arg --root=DIR``)."""
    words = iter(_runtime_arguments(command))
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--root":
            return state.canonical(value if equals else next(words, "")) or None
    return None


def _runtime_arguments(command: list[str]) -> Iterator[str]:
    for word, after in itertools.pairwise([*command, ""]):
        if word == "--runtime-arg":
            yield after
        elif word.startswith("--runtime-arg="):
            yield word.partition("=")[2]
