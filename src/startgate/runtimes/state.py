"""What the runtimes themselves keep of a container: runc's state.json, crun's status.

Both are written before the container's program runs. They name the init's pid and its
start time, so a reused pid is told apart.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from startgate.foreign import UNDECODABLE
from startgate.kernel import files

_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Flavour:
    """Where a family of runtimes keeps a container's state, and under which names."""

    name: str
    root: str
    file: str


RUNC = Flavour("runc", "/run/runc", "state.json")
CRUN = Flavour("crun", "/run/crun", "status")
YOUKI = Flavour("youki", "/run/youki", "state.json")
FLAVOURS = (RUNC, CRUN, YOUKI)
CRUN_OF_LOGIN = "/run/user/0/crun"
"""Where crun keeps its state when root's login set XDG_RUNTIME_DIR."""

_FIFO = "exec.fifo"
"""The init of a created container waits for somebody to open it; `start` removes it."""


def flavour(runtime: str) -> Flavour:
    """Return the flavour of a runtime binary's name; what is none of the others is like runc."""
    return next((kind for kind in (CRUN, YOUKI) if kind.name in runtime), RUNC)


def canonical(root: str) -> str:
    """Return the name by which a state directory is known: one for all ways to write it.

    Engines write /var/run, a link to /run.
    """
    root = os.path.normpath(root)
    root = "/" + root.lstrip("/") if root.startswith("/") else root  # normpath keeps two slashes
    return root.removeprefix("/var") if f"{root}/".startswith("/var/run/") else root


class ContainerState(msgspec.Struct, frozen=True):
    """What a state directory says of one container's init."""

    pid: int
    start: int = 0
    """In clock ticks since boot; 0: not told."""
    id: str | None = None
    bundle: str | None = None


class _RuncConfig(msgspec.Struct, frozen=True):
    labels: tuple[str, ...] | None = None


class _RuncState(msgspec.Struct):
    init_process_pid: int
    init_process_start: int
    id: str | None = None
    config: _RuncConfig = _RuncConfig()


class _CrunStatus(msgspec.Struct, rename={"start": "process-start-time"}):
    pid: int
    start: int = 0
    bundle: str | None = None


class _YoukiState(msgspec.Struct, rename={"version": "ociVersion"}):
    version: str
    id: str
    pid: int | None = None
    bundle: str | None = None


_runc = msgspec.json.Decoder(_RuncState)
_crun = msgspec.json.Decoder(_CrunStatus)
_youki = msgspec.json.Decoder(_YoukiState)


def decode(data: bytes, kind: Flavour) -> ContainerState:
    """Decode a state file. Raises one of `foreign.UNDECODABLE` on anything else."""
    if kind is CRUN:
        status = _crun.decode(data)
        return ContainerState(status.pid, status.start, None, status.bundle)
    if kind is YOUKI:
        youki = _youki.decode(data)
        return ContainerState(youki.pid or 0, 0, youki.id, youki.bundle)
    state = _runc.decode(data)
    labels = dict(label.partition("=")[::2] for label in state.config.labels or ())
    return ContainerState(state.init_process_pid, state.init_process_start, state.id, labels.get("bundle"))


def read(root: int, directory: str, identity: str, kind: Flavour) -> ContainerState | None:
    """Read a container's state; None where there is none that can be believed.

    `root` is an fd of the root directory in which the state directory is looked for;
    `identity` the container's id, which must be a plain name; the file must be root's.
    """
    if "/" in identity or identity in ("", ".", ".."):
        return None
    path = os.path.join(directory, identity, kind.file)
    owner = os.fstat(root).st_uid  # 0, as everybody's root directory is root's
    try:
        state = decode(files.read_regular(root, path, _LIMIT, owner=owner), kind)
    except (OSError, *UNDECODABLE):
        return None
    return state if state.pid > 0 and state.id in (None, identity) else None


def is_started(root: int, directory: str, identity: str) -> bool:
    """Was `start` done? A container that is only created waits at a fifo."""
    try:
        os.close(files.open_in_root(root, os.path.join(directory, identity, _FIFO), os.O_PATH))
    except OSError:
        return True
    return False
