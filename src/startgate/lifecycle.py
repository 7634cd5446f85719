"""The state of each container, from its runtime command to its end. Pure: no fd, no clock.

A container is found in two ways: by the runtime process that starts it, until it is
created, and by its key. A start whose id is in use already never replaces the one that
runs: the runtime will refuse it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from startgate.errors import Overloaded
from startgate.events import Container, Note
from startgate.exits import Watch
from startgate.hold import Hold
from startgate.kernel.pids import PidNamespace
from startgate.kernel.process import ProcessId
from startgate.listeners import Deny
from startgate.runtimes.commandline import Invocation
from startgate.runtimes.log import RuntimeLog
from startgate.runtimes.oci import Config
from startgate.runtimes.state import RUNC, Flavour

STARTING_LIMIT = 10_000
_JOINING_LIMIT = 1000


class State(Enum):
    """The OCI runtime-spec's words; CREATED covers the time in which its gate is passed."""

    CREATING = auto()
    CREATED = auto()
    RUNNING = auto()
    STOPPED = auto()


class Key(NamedTuple):
    """A container's identity on a host: ids are unique within one state directory only,
    and the default one differs from user to user. `root` is the directory's path on the host,
    or, where it has none, its place in a file system: `gates.keys`."""

    root: str
    id: str
    uid: int = 0


class End(NamedTuple):
    """The end of a container's init, or of a start that came to nothing."""

    status: int | None
    """A wait status, None where unknown."""
    message: str | None = None


class Start(NamedTuple):
    """A runtime command that starts a container, and whose it is."""

    key: Key
    root: str
    pids: PidNamespace | None
    invocation: Invocation
    runtime: ProcessId
    arguments: list[bytes]
    command: Hold | None
    """None: it was not held."""
    flavour: Flavour
    namespaces: dict[str, int]


@dataclass(eq=False, slots=True)
class Entry:
    """One container. What `Lifecycle` decides on changes under its lock only; `gated`, `config`,
    `verdict` and the watches are the gates' notes, each written by whoever passes a gate."""

    key: Key
    invocation: Invocation
    runtime: ProcessId
    """The runtime process that starts it; of a container that was there before us, its init."""
    container: Container
    command: Hold | None
    """The hold of its command gate; None: it was there before us."""
    root: str = ""
    """Its state directory, as its runtime names it."""
    pids: PidNamespace | None = None
    """Where its runtime counts pids, None: as the host does."""
    arguments: list[bytes] = field(default_factory=list)
    """The runtime's command line."""
    namespaces: dict[str, int] = field(default_factory=dict)
    """The runtime's at its execve; empty: not known. Later, runc's main thread may be in the container's."""
    state: State = State.CREATING
    passed: bool = False
    """The work of the `created` gate is done; until then `start` waits for it."""
    requested_signal: int | None = None
    verdict: Deny | None = None
    """Refused where it could not be denied cleanly: denied at its first exec."""
    waiting: list[Hold] = field(default_factory=list)
    """Holds of `start` commands that wait for the created gate to be passed."""
    gated: bool = False
    """A gate is armed that will tell its pid."""
    spare: bool = False
    """Its first exec is held only for whoever starts it without a runtime."""
    config: Config | None = None
    """Its config.json, once read."""
    digest: bytes | None = None
    """Of that config.json's bytes."""
    flavour: Flavour = RUNC
    """Of the runtime that was executed last: a wrapper's name says little."""
    notes: tuple[Note, ...] = ()
    """What rules said since its `creating` was told: the next event tells it."""
    log: RuntimeLog | None = None
    """Where the runtime tells why the start failed."""
    runtime_watch: Watch | None = None
    init_watch: Watch | None = None
    told: bool = False
    """Its `creating` was published, or denied: only then may `stopped` follow."""
    end: End | None = None
    """How its init ended while the created gate was not passed yet."""

    def keep(self, notes: tuple[Note, ...]) -> None:
        """Keep what rules said for the next event."""
        self.notes += notes


class Lifecycle:
    """All containers that are known and have not ended. Any thread may use it."""

    def __init__(self, unsettled: Callable[[int], object], limit: int = STARTING_LIMIT) -> None:
        """`unsettled` is told, whenever it changes, for how many containers a `start` or a `delete`
        may have to be held; it must not wait. `limit` is how many may be starting at once: each
        costs fds, and its config.json.
        """
        self._limit = limit
        self._lock = threading.Lock()
        self._starting: dict[ProcessId, Entry] = {}
        self._containers: dict[Key, Entry] = {}
        self._joining: deque[ProcessId] = deque(maxlen=_JOINING_LIMIT)
        self._unsettled: set[Entry] = set()
        self._tell_unsettled = unsettled

    def begin(self, entry: Entry) -> Entry:
        """A runtime command starts a container: `creating`. Return the entry of that process from now on:
        this one, or the one that another thread began for it first. Raises Overloaded."""
        with self._lock:
            other = self._starting.get(entry.runtime)
            if other and other.key.id == entry.key.id and not (other.command and other.command.denied):
                return other
            if len(self._starting) >= self._limit and entry.runtime not in self._starting:
                raise Overloaded(f"{self._limit} containers are being created already")
            self._starting[entry.runtime] = entry
            self._unsettle(entry)
            return entry

    def under_way(self, identity: str) -> list[Entry]:
        """Return the starts of that id that are not refused."""
        with self._lock:
            named = [entry for entry in self._starting.values() if entry.key.id == identity]
            return [entry for entry in named if not (entry.command and entry.command.denied)]

    def pass_on(self, entry: Entry, start: Start) -> bool:
        """A wrapper has executed the runtime, or another wrapper: its command counts. False: too late."""
        with self._lock:
            if entry.state is not State.CREATING:
                return False
            self._drop_starting(entry)
            for name, value in start._asdict().items():
                setattr(entry, name, value)
            self._starting[entry.runtime] = entry
            return True

    def adopt(self, entry: Entry) -> bool:
        """A container is there that no gate has seen. False: one has."""
        with self._lock:
            ours = (e for e in self._starting.values() if e.key == entry.key)
            if entry.key in self._containers or any(
                e.runtime.start_time <= entry.runtime.start_time for e in ours
            ):
                return False  # (a start of this id that began later will be refused)
            if entry.state is State.CREATING:
                self._starting[entry.runtime] = entry
            else:
                self._containers[entry.key] = entry
            if not entry.passed:
                self._unsettle(entry)
            return True

    def find(self, key: Key) -> Entry | None:
        """Return the container of that key: the created one, else the one being created.

        So a start that will be refused, as its id is in use, hides nothing.
        """
        with self._lock:
            return self._containers.get(key) or self._being_created(key)

    def doubt(self) -> list[Entry]:
        """Somebody may have passed a gate while no worker was there: rely on no gate that is armed. Return
        the containers that are being created: each may be the one."""
        with self._lock:
            entries = [entry for entry in self._starting.values() if entry.state is State.CREATING]
            for entry in entries:
                entry.gated = False
            return entries

    def to_start(self, key: Key) -> Entry | None:
        """Return the container that a `start` command means, if its created gate is not passed."""
        with self._lock:
            entry = self._containers.get(key)
            return entry if entry and not entry.passed else self._being_created(key)

    def without_init(self, key: Key) -> Entry | None:
        """Return the container of that key whose `create` may be done, and whose init is not known."""
        with self._lock:
            entry = None if key in self._containers else self._being_created(key)
            return entry if entry and entry.container.pid is None else None

    def _being_created(self, key: Key) -> Entry | None:
        """Of several starts with one id, the one that has an init succeeds; else the newest may."""
        entries = [entry for entry in self._starting.values() if entry.key == key]
        return next((e for e in entries if e.container.pid is not None), entries[-1] if entries else None)

    def of(self, key: Key) -> list[Entry]:
        """Return all containers of that key: those that are being created, and the one that is there."""
        with self._lock:
            every = (*self._starting.values(), self._containers.get(key))
            return [entry for entry in every if entry and entry.key == key]

    def rivals(self, entry: Entry) -> list[Entry]:
        """Return the other containers of that key."""
        return [other for other in self.of(entry.key) if other is not entry]

    def claim(self, entry: Entry, container: Container) -> bool:
        """CREATING -> CREATED. True for exactly one caller, which then passes the gate."""
        with self._lock:
            if entry.state is not State.CREATING:
                return False
            entry.state = State.CREATED
            entry.container = container
            self._drop_starting(entry)
            self._containers[entry.key] = entry
            return True

    def wait(self, entry: Entry, hold: Hold) -> bool:
        """Keep `hold` until the created gate is passed. False: it is passed already."""
        with self._lock:
            if entry.passed or entry.state is not State.CREATED:
                return False
            entry.waiting.append(hold)
            return True

    def passed(self, entry: Entry) -> tuple[list[Hold], End | None]:
        """The created gate is passed; return the holds that waited, and an end that came early."""
        with self._lock:
            entry.passed = True
            if not entry.key.uid:  # a user's, if it was refused, is refused at each `start`
                self._settle(entry)
            entry.config = None  # large, and not needed any more
            waiting, entry.waiting = entry.waiting, []
            end, entry.end = entry.end, None
            return waiting, end

    def told(self, entry: Entry) -> End | None:
        """Its `creating` is published: from now on its end may be. Return an end that was kept back for
        that; None while the created gate is being passed, as `passed` returns it then."""
        with self._lock:
            entry.told = True
            if entry.state is State.CREATED and not entry.passed:
                return None
            end, entry.end = entry.end, None
            return end

    def started(self, entry: Entry) -> bool:
        """CREATED -> RUNNING. False unless it was created and has not run before."""
        with self._lock:
            if entry.state is not State.CREATED:
                return False
            entry.state = State.RUNNING
            return True

    def stopped(self, entry: Entry, end: End) -> bool:
        """Any state -> STOPPED. True for exactly one caller, which tells of it.

        While the created gate is being passed the end is kept until it is: `passed`.
        """
        with self._lock:
            if entry.state is State.STOPPED:
                return False
            if not entry.told or (entry.state is not State.CREATING and not entry.passed):
                entry.end = end
                return False
            entry.state = State.STOPPED
            self._settle(entry)
            self._drop_starting(entry)
            if self._containers.get(entry.key) is entry:
                del self._containers[entry.key]
            return True

    def _unsettle(self, entry: Entry) -> None:
        self._unsettled.add(entry)
        self._tell_unsettled(len(self._unsettled))

    def _settle(self, entry: Entry) -> None:
        self._unsettled.discard(entry)
        self._tell_unsettled(len(self._unsettled))

    def _drop_starting(self, entry: Entry) -> None:
        if self._starting.get(entry.runtime) is entry:  # a denied process may have tried again
            del self._starting[entry.runtime]

    def describe(self, entry: Entry, container: Container) -> bool:
        """Replace what is known of a container that is being created; False: it is not."""
        with self._lock:
            if entry.state is not State.CREATING:
                return False
            entry.container = container
            return True

    def joins(self, runtime: ProcessId) -> None:
        """A runtime process executes something in a container that is there: `exec`."""
        with self._lock:
            self._joining.append(runtime)

    def runtimes(self) -> list[ProcessId]:
        """Return the runtime processes that start containers, and those that have joined one lately."""
        with self._lock:
            return [*self._starting, *self._joining]

    def knows(self, identity: str) -> bool:
        """Is there a container of that id, in whichever state directory?"""
        with self._lock:
            every = (*self._starting.values(), *self._containers.values())
            return any(entry.key.id == identity for entry in every)

    def signal(self, key: Key, number: int | None) -> None:
        """Somebody asked the runtime to send a signal: a stop may follow."""
        with self._lock:
            entry = self._containers.get(key)
            if entry is None and (created := self._being_created(key)) and created.container.pid:
                entry = created  # it waits for `start`
            if entry:
                entry.requested_signal = number

    def containers(self) -> list[Entry]:
        """Return all entries: starting ones first."""
        with self._lock:
            return [*self._starting.values(), *self._containers.values()]
