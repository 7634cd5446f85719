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
from startgate.kernel.process import Proc

_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Flavour:
    """Where a family of runtimes keeps a container's state, and under which names."""

    root: str
    file: str


RUNC = Flavour("/run/runc", "state.json")
CRUN = Flavour("/run/crun", "status")
CRUN_OF_LOGIN = "/run/user/0/crun"
"""Where crun keeps its state when root's login set XDG_RUNTIME_DIR."""


def flavour(runtime: str) -> Flavour:
    """Return the flavour of a runtime binary's name; what is not crun is like runc."""
    return CRUN if "crun" in runtime else RUNC


class _RuncState(msgspec.Struct):
    init_process_pid: int
    init_process_start: int


class _CrunStatus(msgspec.Struct, rename={"start": "process-start-time"}):
    pid: int
    start: int = 0


_runc = msgspec.json.Decoder(_RuncState)
_crun = msgspec.json.Decoder(_CrunStatus)


def decode(data: bytes, kind: Flavour) -> tuple[int, int]:
    """Return (pid, start time in clock ticks; 0 unknown) of a container's init.

    Raises one of `foreign.UNDECODABLE` on anything else.
    """
    if kind is CRUN:
        status = _crun.decode(data)
        return status.pid, status.start
    state = _runc.decode(data)
    return state.init_process_pid, state.init_process_start


def init_pid(proc: Proc, root: int, directory: str, identity: str, kind: Flavour) -> int | None:
    """Return the pid of a container's init, if it lives and is still that process.

    `root` is an fd of the root directory in which the state directory is looked for;
    `identity` the container's id, which must be a plain name. Reads a file: on a worker.
    """
    if "/" in identity or identity in ("", ".", ".."):
        return None
    try:
        data = files.read_regular(root, os.path.join(directory, identity, kind.file), _LIMIT)
        pid, start = decode(data, kind)
    except (OSError, *UNDECODABLE):
        return None
    seen = proc.start_time(pid) if pid > 0 else None
    return pid if seen is not None and start in (0, seen) else None
