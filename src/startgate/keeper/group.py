"""A fanotify group that the keeper has: what is held in it, the answers, and its marks."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from startgate.errors import StartgateError
from startgate.keeper import protocol
from startgate.keeper.channel import Channel, is_gone
from startgate.keeper.protocol import Message, Op, Owed
from startgate.kernel import fanotify

if TYPE_CHECKING:
    from startgate.hold import Hold

log = logging.getLogger(__name__)

MARK_LIMIT = 2.0
"""Seconds after which a mark that is not answered is given up, with the thread that makes it."""
_REPLACED_LIMIT = 1.0
"""Seconds in which the next yard comes, once one is gone."""
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
_NEXT_LIMIT = 5.0
"""Seconds in which a yard that is gone is replaced, or all is over."""


class KeeperGone(StartgateError):
    """The keeper is not there any more: the kernel lets all go, nothing is held."""


class KeptGroup:
    """Stands in for a fanotify group. It may be given new sockets: the yard is replaced when it hangs."""

    def __init__(self, hangs: Callable[[], None]) -> None:
        """`hangs` is called where no socket for marks is left."""
        self._hangs = hangs
        self._changed = threading.Condition()
        self._events: Channel | None = None
        self._marks: queue.LifoQueue[Channel] = queue.LifoQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._holds: dict[int, Hold] = {}
        self._settling = 0

    # Its sockets

    def attach(self, events: Channel, marks: list[Channel]) -> None:
        """Use these sockets from now on; takes them over."""
        with self._changed:
            before, self._events = self._events, events
            self._marks = queue.LifoQueue()
            for channel in marks:
                self._marks.put(channel)
            self._changed.notify_all()
        with self._lock:
            self._holds.clear()  # who made room for this one has answered them; late answers are not for it
        if before:
            before.shut()

    def close(self) -> None:
        """End all receiving. What is held is left to the keeper. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._events:
            self._events.shut()

    def close_fds(self) -> None:
        """Close the sockets, once nobody uses them any more."""
        if self._events:
            self._events.close()
        for channel in self._marks.queue:  # not its lock: another thread may have had it when we were forked
            channel.close()

    # What is held

    def receive(self) -> Message | None:
        """Wait for what the keeper says; None after `close`. Raises KeeperGone."""
        while not self._closed:
            channel = self._events
            if channel is None:
                raise KeeperGone("the keeper was never reached")
            try:
                data, fd = channel.receive()
            except OSError as error:
                if not is_gone(error):
                    raise
                data, fd = b"", -1
            if data:
                return protocol.decode(data, fd)
            self._await_next(channel)
        return None

    def _await_next(self, gone: Channel) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._events is not gone, _NEXT_LIMIT):
                raise KeeperGone("the keeper is gone: nothing is held any more")

    def remember(self, hold: Hold) -> None:
        """The hold is to be told if its deadline answers it."""
        with self._lock:
            self._holds[hold.id] = hold

    def expired(self, number: int) -> Hold | None:
        """Return the hold that the deadline answered; None: it is not remembered."""
        with self._lock:
            return self._holds.pop(number, None)

    # What is said

    def answer(self, number: int, response: int) -> None:
        """Let the held task go (FAN_ALLOW) or fail its access with EPERM (FAN_DENY)."""
        with self._lock:
            self._holds.pop(number, None)
        self._send(protocol.encode(Op.ANSWER, number, response=response))

    def flag(self, number: int, response: int) -> None:
        """Say what the deadline of a hold is to answer."""
        self._send(protocol.encode(Op.FLAG, number, response=response))

    def extend(self, number: int, seconds: float) -> None:
        """Put the deadline of a hold off, once."""
        self._send(protocol.encode(Op.EXTEND, number, extend_ms=int(seconds * 1000)))

    def pong(self) -> None:
        """Say that we are here."""
        self._send(protocol.encode(Op.PONG))

    def own(self, pid: int) -> None:
        """Never hold what this process does."""
        self._send(protocol.encode(Op.MINE, pid=pid))

    def owe(self, owed: Owed) -> None:
        """Say what deadlines are to deny, also where we come too late to say it of one."""
        self._send(protocol.encode(Op.OWED, owed=owed))

    def settling(self) -> Callable[[int], None]:
        """Return what tells for how many containers of a `Lifecycle` a `start` or a `delete` may have to
        be held; the keeper is told of the sum of all."""
        own = 0

        def tell(containers: int) -> None:
            nonlocal own
            with self._lock:
                before = self._settling
                self._settling += containers - own
                own = containers
                if bool(before) != bool(self._settling):
                    self._send(protocol.encode(Op.SETTLING, settling=self._settling))

        return tell

    def _send(self, data: bytes) -> None:
        """Never waits, never raises: where the keeper is gone or does not listen, others answer."""
        channel = self._events
        if channel is None:
            return
        try:
            channel.send(data)
        except OSError as error:
            if not is_gone(error):
                log.error("the keeper was not told: %s", error)

    # Its marks

    def mark(self, mask: int, path: str) -> None:
        """Mark the inode that `path` names. Raises OSError (ENOENT, ENOSPC, ...; ETIMEDOUT)."""
        self._mark(fanotify.FAN_MARK_ADD, mask, path, os.O_PATH)

    def unmark(self, mask: int, path: str) -> None:
        """Undo `mark`. Raises OSError: ENOENT when the inode has no such mark."""
        self._mark(fanotify.FAN_MARK_REMOVE, mask, path, os.O_PATH)

    def ignore(self, mask: int, path: str) -> None:
        """Raise no such events on the inode itself, whatever its directory is marked for. Raises OSError.

        Since Linux 5.9 a directory's mark and a child's are looked at together.
        """
        how = fanotify.FAN_MARK_ADD | fanotify.FAN_MARK_IGNORED_MASK | fanotify.FAN_MARK_IGNORED_SURV_MODIFY
        self._mark(how, mask, path, os.O_PATH | os.O_NOFOLLOW)

    def heed(self, mask: int, path: str) -> None:
        """Undo `ignore`. Raises OSError: ENOENT when the inode has no such mark."""
        how = fanotify.FAN_MARK_REMOVE | fanotify.FAN_MARK_IGNORED_MASK
        self._mark(how, mask, path, os.O_PATH | os.O_NOFOLLOW)

    def _mark(self, how: int, mask: int, path: str, flags: int) -> None:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            number = self._ask(protocol.MARK.pack(mask, how, 0), fd)
        finally:
            os.close(fd)
        if number:
            raise OSError(number, os.strerror(number), path)

    def _ask(self, request: bytes, fd: int) -> int:
        """Return the errno of a mark. Where the yard is just replaced, the next one is asked."""
        marks = self._marks
        number = self._ask_of(marks, request, fd)
        if number not in _GONE:
            return number
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._marks is not marks, _REPLACED_LIMIT):
                return number
        return self._ask_of(self._marks, request, fd)

    def _ask_of(self, marks: queue.LifoQueue[Channel], request: bytes, fd: int) -> int:
        """A socket whose mark hangs is not used again."""
        if self._closed:  # nobody is there any more: nothing to wait for
            return errno.EPIPE
        try:
            channel = marks.get(timeout=MARK_LIMIT)
        except queue.Empty:
            if marks is self._marks:  # else there is a new yard already
                self._hangs()
            return errno.ETIMEDOUT
        try:
            channel.send(request, fd)
            data, _ = channel.receive(protocol.MARKED.size)
        except OSError as error:
            channel.close()
            return errno.ETIMEDOUT if error.errno == errno.EAGAIN else error.errno or errno.EIO
        if not data:
            channel.close()
            return errno.EPIPE
        marks.put(channel)
        return int(protocol.MARKED.unpack(data)[0])
