"""Who is at the other end of a unix socket: the kernel says it (unix(7)), nobody can claim it."""

from __future__ import annotations

import errno
import grp
import os
import socket
import struct
from typing import NamedTuple

GROUP = "startgate"
"""Its members may ask, besides root."""

_SO_PEERGROUPS = 59
"""<asm-generic/socket.h>, since Linux 4.13: the peer's further groups, when it connected."""
_CREDENTIALS = struct.Struct("=iII")
_GROUPS_AT_FIRST = 64


class Peer(NamedTuple):
    """A process, as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected. Raises OSError."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Peer(pid, uid, frozenset((gid, *_further_groups(connection))))


def _further_groups(connection: socket.socket) -> tuple[int, ...]:
    size = _GROUPS_AT_FIRST * 4
    while True:
        try:
            found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, size)
        except OSError as error:
            if error.errno == errno.ERANGE and size < 1 << 20:
                size *= 4
                continue
            if error.errno == errno.ENOPROTOOPT:  # a kernel without it
                return ()
            raise
        return tuple(struct.unpack(f"={len(found) // 4}I", found))


def group_id() -> int | None:
    """Return the number of the group; None: there is no such group here."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def may_ask(peer: Peer) -> bool:
    """May it use the API? Root may, members of the group, and the agent's own user."""
    return peer.uid in (0, os.geteuid()) or group_id() in peer.groups


def listen(path: str) -> socket.socket:
    """Return a listening socket at a path, which was never there with another mode. Raises OSError.

    What is there already is replaced: the file that another agent left.
    """
    unfinished = f"{path}.{os.getpid()}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listening.fileno(), 0o600)  # what bind(2) makes has this mode, or less
        listening.bind(unfinished)
        group = group_id()
        if group is not None:
            try:
                os.chown(unfinished, -1, group)
                os.chmod(unfinished, 0o660)
            except PermissionError:
                pass  # without CAP_CHOWN, and not a member: it is root's alone
        listening.listen(64)
        listening.setblocking(False)
        os.rename(unfinished, path)
    except BaseException:
        listening.close()
        raise
    return listening
