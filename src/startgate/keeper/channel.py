"""A socket (SOCK_SEQPACKET) whose messages may have an fd with them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

from startgate.keeper import protocol

_FD = struct.Struct("i")
_ROOM = socket.CMSG_SPACE(4 * _FD.size)


class Channel:
    """Owns one end. Several threads may send, and several receive: each gets whole messages."""

    def __init__(self, fd: int) -> None:
        """Takes the fd over. Receiving waits, sending never does."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)

    def send(self, data: bytes, fd: int = -1) -> None:
        """Raises OSError: EPIPE where the other side is gone, EAGAIN where it does not read."""
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        if fd < 0:
            self._socket.send(data, flags)
        else:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))]
            self._socket.sendmsg([data], rights, flags)

    def send_waiting(self, data: bytes) -> None:
        """As `send`, but wait until there is room. Raises OSError."""
        self._socket.send(data, socket.MSG_NOSIGNAL)

    def receive(self, longest: int = protocol.LONGEST) -> tuple[bytes, int]:
        """Wait for a message; return it, with its fd or -1. Empty: the other side is gone, or `shut`.

        Raises OSError: EAGAIN once `limit` has passed.
        """
        data, rights, _, _ = self._socket.recvmsg(longest, _ROOM, socket.MSG_CMSG_CLOEXEC)
        return data, _only_fd(rights) if rights else -1

    def limit(self, seconds: float) -> None:
        """Let `receive` wait no longer."""
        whole = int(seconds)
        time = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time)

    def shut_sending(self) -> None:
        """Let the other side see the end; what it sends still comes. Safe to call twice."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def shut(self) -> None:
        """Wake all who wait in `receive`: there is nothing more. Safe to call twice, or after `close`."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the fd. Safe to call twice."""
        self._socket.close()


def _only_fd(rights: list[tuple[int, int, bytes]]) -> int:
    fds = [
        fd
        for level, kind, data in rights
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _FD.iter_unpack(data[: len(data) - len(data) % _FD.size])
    ]
    for fd in fds[1:]:
        os.close(fd)
    return fds[0] if fds else -1


def pair() -> tuple[Channel, int]:
    """Return a channel, and the fd of its other end. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours.detach()), theirs.detach()


def is_gone(error: OSError) -> bool:
    """Does it say that the other side is gone?"""
    return error.errno in (errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN)
