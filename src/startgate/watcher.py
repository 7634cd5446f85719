"""The watcher: all parts put together, and the library's main door."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypedDict

from startgate.callbacks import Callbacks
from startgate.counter import Counter
from startgate.errors import KernelUnsupported, StartgateError
from startgate.events import Event, EventType
from startgate.exits import exits_for
from startgate.fdlimit import raise_fd_limit, room_for_jobs, starting_limit
from startgate.gates import missed
from startgate.gates.command import CommandGate
from startgate.gates.container import ContainerGate
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.gates.execs import Execs
from startgate.gates.existing import Existing
from startgate.gates.marks import PidFiles, Programs
from startgate.gates.oom import OutOfMemory
from startgate.gates.readers import reading
from startgate.gates.restored import Restored
from startgate.gates.rootless import Rootless
from startgate.hold import check_hold_timeout as check_hold_timeout
from startgate.inherited.notes import Notes
from startgate.inherited.resources import Opened, Resources
from startgate.keeper.channel import Channel
from startgate.keeper.protocol import Held, Owed
from startgate.kernel import capabilities, features, spawn
from startgate.kernel.process import Proc
from startgate.lifecycle import Lifecycle
from startgate.listeners import Listeners, Registration, Subscription, lost
from startgate.runtimes import environment
from startgate.runtimes.find import RuntimeBinaries
from startgate.telling import Telling
from startgate.workers import Workers

log = logging.getLogger(__name__)


class WatcherOptions(TypedDict, total=False):
    """The options of `Watcher`, for those who pass them on."""

    runtimes: Sequence[str]
    exec_records: str
    hold_timeout: float
    backlog: int
    host_root: str
    existing: bool
    actual: bool
    exec_env: Sequence[str]


_OF_START: tuple[EventType, ...] = ("creating", "created", "started")

_started: weakref.WeakSet[Watcher] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child that closes its copy must not end our readers: they share eventfds and pipes."""
    for watcher in list(_started):
        watcher.forget()


os.register_at_fork(after_in_child=_forget_in_child)


class Watcher(Callbacks):
    """Sees every container start and stop on this host; holds starts while callbacks run.

    Use it as a context manager, and iterate it for the events::

        with Watcher() as watcher:
            for event in watcher:
                print(event.type, event.container)

    Callbacks are registered with `on`, before or after the start. They run on threads of
    the watcher, several at a time for different containers.
    """

    def __init__(
        self,
        *,
        runtimes: Sequence[str] = (),
        exec_records: str = "auto",
        hold_timeout: float = 2.0,
        backlog: int = 10_000,
        host_root: str = "/",
        existing: bool = True,
        actual: bool = False,
        exec_env: Sequence[str] = environment.DEFAULT,
        inherited: Resources | None = None,
        notes: str = "",
    ) -> None:
        """Prepare; nothing is watched before `start`.

        `runtimes` are paths of further runtime binaries. `exec_records` names the exec
        record source: ``auto``, ``table``, ``queue`` or ``procfs``. No task is held longer
        than `hold_timeout` seconds. A subscription that is more than `backlog` events
        behind misses some, and is told so by a `lost` event. `host_root` is where the host's
        root directory is mounted, its /proc included, for a watcher in a container.
        `existing`: tell of the containers that run already, and follow them.
        `actual`: read what the kernel says of each container (`Container.actual`), asked for or not.
        `exec_env`: the environment variables of an `exec` that its event tells.
        `inherited` is what a daemon's keeper has; the watcher leaves it at its end. `notes` is the
        directory where the watchers of that keeper, one after the other, note what they know.
        """
        check_hold_timeout(hold_timeout)
        self._runtimes = tuple(runtimes)
        self._exec_records = exec_records
        self._hold_timeout = hold_timeout
        self._backlog = backlog
        self._host_root = host_root
        self._existing = existing
        self._exec_env = tuple(exec_env)
        self._inherited = inherited
        self._notes = notes
        self._listeners = Listeners()
        self._listeners.actual = actual
        self._telling: Telling | None = None
        self._events: Subscription | None = None
        self._parts = ExitStack()
        self._resources: Resources | None = None
        self._running = False
        self._failure = ""
        self._source = "none"
        self._binaries: RuntimeBinaries | None = None

    @property
    def exec_records(self) -> str:
        """The name of the exec record source in use."""
        return self._source

    @property
    def binaries(self) -> list[str]:
        """The paths of the runtime binaries that are watched."""
        return self._binaries.paths if self._binaries else []

    @property
    def lines(self) -> Channel | None:
        """A daemon's output: whoever writes it outlives this process."""
        resources = self._resources or self._inherited
        return resources.keeper.output if resources else None

    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None:
        """Drop callbacks and register others in one step, as when a configuration is reloaded."""
        self._listeners.replace(old, new)
        self._tell_owed()
        if self._telling:
            self._telling.begin()

    def read_actual(self) -> None:
        """Read `Container.actual` of containers that are created from now on, whoever asks for it."""
        self._listeners.actual = True

    def subscribe(self) -> Subscription:
        """Return a further, independent iterator over the events from now on."""
        return self._listeners.subscribe(self._backlog)

    def publish(self, event: Event) -> None:
        """Give all subscriptions an event of your own. Nothing is held: no callback is asked about it."""
        self._listeners.publish(event)

    def __iter__(self) -> Iterator[Event]:
        """Iterate over all events since the start; ends when the watcher is closed.

        Raises StartgateError once it can't go on: then nothing is held any more.
        """
        return self._iterate(self.events)

    def _iterate(self, events: Subscription) -> Iterator[Event]:
        yield from events
        self.check()

    @property
    def events(self) -> Subscription:
        """The watcher's own subscription, which `iter` uses. Raises StartgateError before `start`."""
        if self._events is None:
            raise StartgateError("the watcher is not started: use it in a `with` statement")
        return self._events

    def start(self) -> None:
        """Begin to hold. When it returns, no start is missed any more.

        Raises KernelUnsupported, in one sentence, where this host can't hold containers,
        UsageError for an unknown exec record source, StartgateError when it is started already.
        """
        if self._running:
            raise StartgateError("the watcher is started already")
        self._failure = ""
        with ExitStack() as parts:
            self._assemble(parts)
            self._parts = parts.pop_all()
        self._running = True
        _started.add(self)

    def close(self) -> None:
        """Let every held task go, and stop. Safe to call twice."""
        self._parts.close()
        self._running, self._resources, self._telling = False, None, None
        if self._events:
            self._events.close()

    def check(self) -> None:
        """Raises StartgateError where the watcher can't go on: the keeper is gone, or a thread died."""
        if self._failure:
            raise StartgateError(self._failure)

    def counted(self) -> Counter | None:
        """Return how many runtimes were executed, as BPF counts them; None without BPF."""
        counter = self._resources.source.counter() if self._resources else None
        return counter.read() if counter else None

    def tell_ready(self) -> None:
        """Tell a daemon's keeper that all marks are placed."""
        if self._resources:
            self._resources.keeper.ready()

    def forget(self) -> None:
        """Be as if never started, and leave all that was started to whom it belongs: in a forked child."""
        self._parts.pop_all()
        if self._resources:
            self._resources.keeper.forget()
        self._running, self._events, self._resources, self._telling = False, None, None, None

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _assemble(self, parts: ExitStack) -> None:
        """Build from the bottom up; `parts` closes from the top down."""
        raise_fd_limit()
        spawn.keep_gil_free()
        features.check_host_root(self._host_root)
        features.check_other_processes(self._host_root)
        if self._host_root != "/":
            features.join_host_cgroup_namespace(self._host_root)
        resources = self._inherited or Opened(self._exec_records).keep(self._hold_timeout)
        parts.callback(resources.close)
        self._resources, self._inherited = resources, None
        keeper, self._source = resources.keeper, resources.source.name
        proc = Proc(self._host_root)
        proc.look = resources.source.look()
        context = self._context(parts, resources, proc)
        created = Created(context)
        victims = OutOfMemory(context, resources.source.exits())
        execs = Execs(context, resources.source.joins())
        self._binaries = RuntimeBinaries(keeper.commands, self._runtimes, self._host_root)
        parts.callback(self._binaries.close)
        self._events = resources.outbox or self._listeners.subscribe(self._backlog)
        if resources.outbox:
            self._listeners.attach(resources.outbox)
        self._telling = Telling(self._listeners, self._backlog)
        parts.callback(self._telling.close)
        self._telling.begin()
        Restored(context, created).restore({m.pid for m in keeper.pending[0] if isinstance(m, Held)})
        rootless = Rootless(context, keeper.commands.settling(), execs)
        parts.callback(rootless.close)
        victims.lifecycles.append(rootless.lifecycle)
        execs.lifecycles.append(rootless.lifecycle)
        counter = resources.source.counter()
        commands = CommandGate(context, keeper.commands, created, rootless, execs, counter=counter)
        self._tell_owed()
        parts.enter_context(reading(keeper, context, (commands, ContainerGate(context, created))))
        parts.callback(keeper.end)
        keeper.start(lambda: context.housekeeping.submit(lambda: _mark_again(context, created)), self._fail)
        context.exits.failed = self._binaries.failed = self._fail
        context.exits.start()
        self._mark(self._binaries)
        parts.enter_context(missed.watching(context, resources.source, commands, self._binaries))
        if self._existing:
            existing = Existing(context, created.ends, self._binaries.add)
            parts.callback(existing.close)
            existing.start()

    def _context(self, parts: ExitStack, resources: Resources, proc: Proc) -> Context:
        housekeeping = Workers(limit=32, spare=2)
        context = Context(
            proc=proc,
            lifecycle=Lifecycle(resources.keeper.commands.settling(), starting_limit()),
            listeners=self._listeners,
            exits=exits_for(proc, resources.source.exits()),
            workers=Workers(),
            housekeeping=housekeeping,
            pid_files=PidFiles(resources.keeper.containers),
            programs=Programs(resources.keeper.containers),
            capabilities=capabilities.of_host(proc),
            notes=Notes(self._notes),
            room=room_for_jobs(),
            exec_env=self._exec_env,
            failed=self._fail,
        )
        parts.callback(context.pid_files.close)
        parts.callback(context.exits.close)
        for workers in (context.workers, context.housekeeping):
            workers.start()
            parts.callback(workers.close)
        return context

    def _fail(self, why: str) -> None:
        """On any thread, never waits: end the iteration, loudly."""
        log.critical("%s", why)
        self._failure = self._failure or why
        if self._events:
            self._events.close()

    def _tell_owed(self) -> None:
        """The keeper's deadlines deny what a listener that fails closed has not decided on."""
        if not self._resources:
            return
        closed = self._listeners.fails_closed
        start = Owed.START if any(map(closed, _OF_START)) else Owed.NOTHING
        self._resources.keeper.commands.owe(start | (Owed.EXEC if closed("exec") else Owed.NOTHING))

    def _mark(self, binaries: RuntimeBinaries) -> None:
        try:
            binaries.mark_all()
        except OSError as error:
            raise KernelUnsupported(f"fanotify can't mark {error.filename}: {error.strerror}") from error
        if not binaries.paths:
            log.warning("no runtime binary is installed yet: waiting for one to appear")


def _mark_again(context: Context, created: Created) -> None:
    """All marks of the second group are gone with the yard that had them."""
    context.pid_files.mark_again()
    context.programs.mark_again()
    context.listeners.publish(
        lost("the keeper's yard was replaced: for a moment reads of pid files and first execs were not held")
    )
    context.workers.submit(created.gaps.catch_up)
