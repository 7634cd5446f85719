"""`exec` events of the same command, again and again, told as one: probes. Pure; on one thread.

Nothing that went wrong is folded: what ends with anything but exit code 0, or can't be told, or of which
a rule had something to say, is told as ever, and so is what runs for longer than the window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import msgspec
from msgspec.structs import replace

from startgate.events import Event

_LIMIT = 10_000
"""Commands that are known, and executions that run: what goes beyond is not folded."""


@dataclass(slots=True)
class _Command:
    """One that was told, and is folded from then on."""

    container: str
    until: float
    count: int = 0
    last: tuple[Event, ...] = ()
    """`exec` and `exec_ended` of the one that was folded last."""


@dataclass(slots=True)
class _Running:
    command: _Command
    event: Event
    until: float


@dataclass(slots=True)
class Folding:
    """What is told of the events that `take` is given: some later, some never."""

    window: float
    """Seconds."""
    clock: Callable[[], float] = time.monotonic
    _commands: dict[Hashable, _Command] = field(default_factory=dict)
    _running: dict[str, _Running] = field(default_factory=dict)
    """By exec_id."""

    def take(self, event: Event) -> Iterator[Event]:
        """Yield what is to be told now that this has happened."""
        match event.type:
            case "exec":
                told = self._begins(event)
            case "exec_ended":
                told = self._ends(event)
            case "stopped" if event.container:
                told = chain(self._leave(event.container.start_id or event.container.id), [event])
            case _:
                told = iter([event])
        yield from told

    @property
    def next_due(self) -> float | None:
        """When `due` has something to do, by the clock."""
        windows = (command.until for command in self._commands.values())
        return min(chain(windows, (running.until for running in self._running.values())), default=None)

    def due(self) -> Iterator[Event]:
        """Yield what is to be told as a window is over."""
        now = self.clock()
        for identity, running in list(self._running.items()):
            if running.until <= now:
                del self._running[identity]
                yield running.event
        for key, command in list(self._commands.items()):
            if command.until > now:
                continue
            if command.count:
                yield from _summary(command)
                command.until = now + self.window
            elif any(running.command is command for running in self._running.values()):
                command.until = now + self.window  # it may be the one that is counted next
            else:
                del self._commands[key]

    def end(self) -> Iterator[Event]:
        """Yield all that was kept back."""
        yield from self._leave(None)

    def _begins(self, event: Event) -> Iterator[Event]:
        key, now = _key(event), self.clock()
        command = self._commands.get(key) if key else None
        if command and event.exec_id and len(self._running) < _LIMIT:
            self._running[event.exec_id] = _Running(command, event, now + self.window)
            return
        yield event
        if key and not command and event.container and len(self._commands) < _LIMIT:
            of = event.container.start_id or event.container.id
            self._commands[key] = _Command(of, now + self.window)

    def _ends(self, event: Event) -> Iterator[Event]:
        running = self._running.pop(event.exec_id or "", None)
        if running is None:
            yield event
        elif event.exit and event.exit.code == 0 and not event.reason:
            running.command.count += 1
            running.command.last = running.event, event
        else:
            yield running.event
            yield event

    def _leave(self, container: str | None) -> Iterator[Event]:
        """Yield what was kept back of a container, which is gone; None: of all."""
        for key, command in list(self._commands.items()):
            if container in (None, command.container):
                del self._commands[key]
                yield from _summary(command)
        for identity, running in list(self._running.items()):
            if container in (None, running.command.container):
                del self._running[identity]
                yield running.event


def _summary(command: _Command) -> Iterator[Event]:
    for event in command.last:
        yield replace(event, repeated=command.count if command.count > 1 else None)
    command.count, command.last = 0, ()


def _key(event: Event) -> Hashable:
    """Return what two executions of the same command have in common; None: it is told as it is."""
    if not (event.process and event.container and event.exec_id) or event.policy or event.reason:
        return None
    container = event.container.start_id or event.container.id
    return (container, msgspec.json.encode(event.process)) if container else None
