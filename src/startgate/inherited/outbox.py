"""Events on their way out of the daemon, in memory that survives the worker.

A worker that dies has told its gates' work is done; what was not yet printed then is printed by
the worker after it.
"""

from __future__ import annotations

import mmap
import os
import struct

import msgspec

from startgate.events import Event
from startgate.kernel import memfd
from startgate.listeners import Subscription, lost

SIZE = 8 << 20
_HEAD, _TAIL, _NUMBER = 0, 1, 2
_FIRST = 24
_ROOM = SIZE - _FIRST
_LENGTH = struct.Struct("=I")

_decoder = msgspec.json.Decoder(Event)


def create(number: int = 0) -> int:
    """Return a memfd for an `Outbox`; its pages cost nothing until they are used.

    `number`: of the last line that was printed; those of this outbox follow.
    """
    fd = memfd.create("startgate-outbox")
    os.ftruncate(fd, SIZE)
    os.pwrite(fd, struct.pack("=Q", number), _NUMBER * 8)
    return fd


class Outbox(Subscription):
    """A ring of events in shared memory, for one consumer. It never makes anyone wait.

    An event is gone from it once the one after it is asked for: a consumer that dies on the
    way gives it to the next one, which may so print it twice, with the same number.
    """

    def __init__(self, fd: int) -> None:
        """Goes on where another process left off; takes the fd over."""
        super().__init__(0, lambda subscription: None)
        self._fd = fd
        self._memory = mmap.mmap(fd, SIZE)
        self._at = memoryview(self._memory)[:_FIRST].cast("Q")
        self._at[_HEAD] = max(self._at[_HEAD], self._at[_TAIL])  # who rewound it died on the way
        self._taken = self._at[_TAIL]
        self.number = self._at[_NUMBER]

    def _add(self, event: Event) -> None:
        """Add an event, or drop it when the consumer is too far behind."""
        record = _record(event)
        self._rewind()
        if self._dropped:
            loss = lost(f"{self._dropped} events were dropped: the output is slow")
            self._dropped = 0 if self._append(_record(loss)) else self._dropped
        if self._dropped or not self._append(record):
            self._dropped += 1

    def _rewind(self) -> None:
        """Use the first pages again while the consumer keeps up: the others are never touched."""
        head = self._at[_HEAD]
        if self._at[_TAIL] == head and head % _ROOM:
            self._taken = self._at[_TAIL] = self._at[_HEAD] = head - head % _ROOM + _ROOM

    def _append(self, record: bytes) -> bool:
        head = self._at[_HEAD]
        if head + len(record) - self._at[_TAIL] > _ROOM:
            return False
        self._write(head, record)
        self._at[_HEAD] = head + len(record)  # last: we may die on the way
        return True

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None at the end, or after `timeout` seconds."""
        with self._lock:
            self._at[_TAIL], self._at[_NUMBER] = self._taken, self.number  # the one before is out
        return super().get(timeout)

    def _next(self) -> Event | None:
        with self._lock:
            if self._taken >= self._at[_HEAD]:
                return None
            (length,) = _LENGTH.unpack(self._read(self._taken, _LENGTH.size))
            record = self._read(self._taken + _LENGTH.size, length)
            self._taken += _LENGTH.size + length
        return _decode(record)

    def _write(self, at: int, data: bytes) -> None:
        start = at % _ROOM
        first = data[: _ROOM - start]
        self._memory[_FIRST + start : _FIRST + start + len(first)] = first
        self._memory[_FIRST : _FIRST + len(data) - len(first)] = data[len(first) :]

    def _read(self, at: int, length: int) -> bytes:
        start = at % _ROOM
        first = self._memory[_FIRST + start : _FIRST + min(start + length, _ROOM)]
        return first + self._memory[_FIRST : _FIRST + length - len(first)]


def _decode(record: bytes) -> Event:
    """A worker of another version may have written it: no reason to die, again and again."""
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        return lost(f"an event of the worker before can't be read: {error}")


def _record(event: Event) -> bytes:
    data = event.to_json()
    return _LENGTH.pack(len(data)) + data
