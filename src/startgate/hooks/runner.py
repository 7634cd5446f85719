"""Which hooks are run at an event, how many at a time, and what follows from their failure."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Protocol

from startgate.events import Event, Note
from startgate.filters import compile_filter
from startgate.hooks import documents, process
from startgate.hooks.config import HOOK_TYPES, HookConfig, resolve
from startgate.hooks.order import Queues
from startgate.kernel import spawn
from startgate.listeners import Deny, Registration

log = logging.getLogger(__name__)

RUNNING_LIMIT = 32
"""Hooks that run at the same time; further ones wait, each for no longer than its timeout."""

_GRACE = 1.0


class _Registers(Protocol):
    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None: ...


class Hooks:
    """Runs hooks: those of one container in order, those of different ones at the same time.

    ::

        watcher = Watcher()
        with Hooks([HookConfig(on=("created",), command="logger hello")]) as hooks:
            hooks.register(watcher)
            with watcher: ...
    """

    def __init__(
        self, configs: Iterable[HookConfig], limit: int = RUNNING_LIMIT, *, missing: bool = False
    ) -> None:
        """Raises UsageError for a filter that does not compile, or a missing program, unless some
        may be `missing`: those fail when they are run."""
        self._hooks = [_Hook(config, missing) for config in configs]
        self._limit = limit
        self._slots = threading.BoundedSemaphore(limit)
        self._turns = Queues()
        self._running = process.Children()

    def register(self, watcher: _Registers) -> None:
        """Have the hooks run at the watcher's events."""
        watcher.replace((), self.registrations())

    def registrations(self) -> list[Registration]:
        """Return the callbacks that run the hooks.

        One for each type: what runs at one event is one turn. Those up to the last that
        fails closed are one of their own, which does.
        """
        found = []
        for kind in HOOK_TYPES:
            hooks = [hook for hook in self._hooks if kind in hook.config.on]
            last = max((n for n, hook in enumerate(hooks, 1) if hook.config.fail_closed), default=0)
            for part, fail_closed in ((hooks[:last], True), (hooks[last:], False)):
                if part:
                    actual = any(hook.asks_for_actual for hook in part)
                    found.append(Registration(kind, partial(self._run, part), fail_closed, actual))
        return found

    def close(self) -> None:
        """Kill the hooks that run; start no more. Safe to call twice."""
        self._running.end(_GRACE)

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, hooks: Sequence[_Hook], event: Event) -> list[Deny | Note]:
        """The callback: run the hooks that match; the first that denies ends it."""
        container, uid = (event.container.id, event.container.uid) if event.container else ("", 0)
        behind = _hooks_behind(event)
        # No turns at `exec`: a hook may itself execute something in its container.
        turn = nullcontext() if event.type == "exec" else self._turns.of(f"{uid} {container}")
        said: list[Deny | Note] = []
        with turn:
            for hook in hooks:
                if hook.config.identity in behind:
                    log.info(
                        "container %s, %s: not run by its own doing: hook %s",
                        container,
                        event.type,
                        hook.config.label,
                    )
                    continue
                failure = self._try(hook, event) if hook.matches(event) else None
                if failure is None:
                    continue
                message = f"hook {hook.config.label}: {failure}"
                log.warning("container %s, %s: %s", container, event.type, message)
                if hook.denies and event.type != "stopped":
                    return [*said, Deny(message)]
                said.append(Note(message, action="error"))
        return said

    def _try(self, hook: _Hook, event: Event) -> str | None:
        """Run one hook, when a slot is free. Returns what went wrong."""
        if self._running.ended:
            return None
        timeout = hook.config.timeout
        if not self._slots.acquire(timeout=timeout):
            return f"not started within {timeout:g} s: {self._limit} hooks are running"
        try:
            outcome = hook.run(event, self._running)
        except OSError as error:
            return f"{hook.command[0]}: {error.strerror}"
        finally:
            self._slots.release()
        return None if self._running.ended else outcome.failure


def _hooks_behind(event: Event) -> tuple[str, ...]:
    """Return the names of the hooks that led to this. One that ran again would do so without end."""
    about = event.process if event.type == "exec" else event.container
    return about.from_hooks if about else ()


class _Hook:
    """A hook that can be run."""

    def __init__(self, config: HookConfig, missing: bool) -> None:
        """Raises UsageError."""
        self.config = config
        self.command = resolve(config, missing=missing)
        self._filter = compile_filter(config.match) if config.match else None
        self.asks_for_actual = self._filter is not None and self._filter.asks_for_actual
        self.denies = config.on_failure == "deny" or config.fail_closed

    def matches(self, event: Event) -> bool:
        """Is it to be run at an event?"""
        return self._filter is None or self._filter(event)

    def run(self, event: Event, running: process.Children) -> process.Outcome:
        """Raises OSError when it can't be started."""
        document = event.to_json()
        environment = {
            **os.environ,
            **documents.variables(event, document),
            **self.config.env,
        }
        environment[spawn.HOOKS] = "".join(
            f"{name}\n" for name in (*_hooks_behind(event), self.config.identity)
        )
        inputs = [documents.state(event), document]
        outcome = process.run(self.command, environment, inputs, self.config.timeout, running)
        log.debug("hook %s: %s", self.config.label, outcome)
        return outcome
