"""The keeper as a worker has it: two groups, and the guard that sees to them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from startgate.errors import KernelUnsupported
from startgate.keeper import protocol
from startgate.keeper.channel import Channel
from startgate.keeper.group import MARK_LIMIT, KeeperGone, KeptGroup
from startgate.keeper.protocol import Control, Message, Welcome

log = logging.getLogger(__name__)

_START_LIMIT = 10.0
_END_LIMIT = 1.0
_YARD = (Control.YARD_MARKS, Control.YARD_EVENTS)


class Keeper:
    """Owns the sockets to the guard, the door (`commands`) and the yard (`containers`)."""

    def __init__(self, control: Channel) -> None:
        """Takes over the socket to the guard. Raises KernelUnsupported where that does not answer."""
        self._control = control
        self.commands = KeptGroup(lambda: None)
        self.containers = KeptGroup(self._yard_hangs)
        self.pending: tuple[list[Message], list[Message]] = ([], [])
        """For each group, what was held before us, and what was answered since anybody was there."""
        self.output: Channel | None = None
        """A daemon's: each message is a line of its output."""
        self._new_yard: Callable[[], object] = lambda: None
        self._gone: Callable[[str], object] = lambda message: None
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="startgate-keeper", daemon=True)
        try:
            self._say_hello()
        except (OSError, ValueError, KeeperGone) as error:
            control.close()
            raise KernelUnsupported(f"the keeper, which holds tasks, does not start: {error}") from error

    def _say_hello(self) -> None:
        self._control.limit(_START_LIMIT)
        self._control.send(protocol.CONTROL.pack(Control.HELLO, protocol.VERSION))
        sockets = self._sockets({Control.DOOR_EVENTS: 1, Control.DOOR_MARKS: 1, **_of_yard()})
        self.commands.attach(sockets[Control.DOOR_EVENTS][0], sockets[Control.DOOR_MARKS])
        self._attach_yard(sockets)
        self.pending = _said_before(self.commands), _said_before(self.containers)
        self._control.limit(0)

    def _sockets(self, wanted: dict[Control, int]) -> dict[Control, list[Channel]]:
        """Receive sockets of these kinds, so many of each."""
        found: dict[Control, list[Channel]] = {kind: [] for kind in wanted}
        while any(len(found[kind]) < count for kind, count in wanted.items()):
            data, fd = self._control.receive()
            if not data:
                raise ConnectionResetError("it ended")
            what = protocol.CONTROL.unpack(data)[0]
            if fd >= 0 and what in found:
                found[Control(what)].append(Channel(fd))
            elif fd >= 0 and what == Control.OUTPUT:
                self.output = Channel(fd)
        return found

    def _attach_yard(self, sockets: dict[Control, list[Channel]]) -> None:
        for channel in sockets[Control.YARD_MARKS]:
            channel.limit(MARK_LIMIT)
        self.containers.attach(sockets[Control.YARD_EVENTS][0], sockets[Control.YARD_MARKS])

    def start(self, new_yard: Callable[[], object], gone: Callable[[str], object]) -> None:
        """Listen to the guard, on a thread. `new_yard` is called when all marks of `containers` are gone
        and have to be made again, `gone` when the keeper is not there any more. Neither may wait."""
        self._new_yard, self._gone = new_yard, gone
        self._thread.start()

    def _listen(self) -> None:
        while not self._closed:
            try:
                data, fd = self._control.receive()
                if not data:
                    break
                if fd >= 0:
                    Channel(fd).close()
                if protocol.CONTROL.unpack(data)[0] == Control.NEW_YARD:
                    self._attach_yard(self._sockets(_of_yard()))
                    self._new_yard()
            except (OSError, ValueError) as error:
                log.error("the keeper is not understood: %s", error)
                break
        if not self._closed:
            self._gone("the keeper is gone: nothing is held any more")

    def ready(self) -> None:
        """Say that all marks are placed: from here on we are relied on."""
        self._control.send(protocol.CONTROL.pack(Control.READY, 0))

    def _yard_hangs(self) -> None:
        log.error("the keeper does not answer marks: it is asked for a new yard")
        self._control.send(protocol.CONTROL.pack(Control.YARD_HANGS, 0))

    def end(self) -> None:
        """Leave. A keeper that is ours alone ends with it, and all is let go; a daemon's gives what is
        held to the next worker. Safe to call twice."""
        self._closed = True
        self.commands.close()
        self.containers.close()
        self._control.shut_sending()
        if self._thread.ident is not None:
            self._thread.join(_END_LIMIT)  # until the other side has ended, too

    def close(self) -> None:
        """Close the sockets, once nobody uses them. Safe to call twice."""
        self.end()
        self._control.shut()
        self.commands.close_fds()
        self.containers.close_fds()
        self._control.close()
        if self.output:
            self.output.close()

    def forget(self) -> None:
        """In a forked child: close our copies, and disturb nobody."""
        self._closed = True
        self.commands.close_fds()
        self.containers.close_fds()
        self._control.close()
        if self.output:
            self.output.close()


def _of_yard() -> dict[Control, int]:
    return {Control.YARD_MARKS: 4, Control.YARD_EVENTS: 1}


def _said_before(group: KeptGroup) -> list[Message]:
    """Return what there is to do of the time before us."""
    said: list[Message] = []
    while not isinstance(message := group.receive(), Welcome):
        if message:
            said.append(message)
    return said
