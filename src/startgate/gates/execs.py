"""`exec_ended`: what came of an `exec`."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass

from msgspec.structs import replace

from startgate.errors import NotReadable
from startgate.events import Container, Event, Exit, Process, Reason
from startgate.exits import ExecOutcome, Joins
from startgate.gates.context import Context, event
from startgate.gates.failure import how
from startgate.hold import Hold
from startgate.kernel import node, pidfd
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Lifecycle
from startgate.passage import Passage
from startgate.records import ExecRecord

log = logging.getLogger(__name__)

_SIGKILL = 9
_LIMIT, _OF_ONE_USER = 16_384, 256
"""Of those that run at once."""


@dataclass(frozen=True, slots=True)
class _Followed:
    told: Event
    """The `exec`."""
    uid: int
    certain: bool
    """Would a process have been seen? It is known by the container's mount namespace."""
    hold: Hold

    @property
    def was_let_go(self) -> bool:
        """Was the runtime? Who is denied ends, too, and may before we take it back."""
        return self.hold.answered and not self.hold.denied


class Execs:
    """Follows what runtimes execute in containers. Outcomes come on the exits' thread, which never waits."""

    def __init__(self, context: Context, joins: Joins | None) -> None:
        """Without `joins` (no BPF) nothing is told."""
        self._context = context
        self._joins = joins
        self._lock = threading.Lock()
        self._followed: dict[ProcessId, _Followed] = {}
        self._of_user: Counter[int] = Counter()
        self.lifecycles: list[Lifecycle] = [context.lifecycle]
        """Of those containers in which a process may end that a worker before us followed."""
        if joins:
            context.exits.first(joins, self.read)

    def run(self, passage: Passage, draft: Event, record: ExecRecord, hold: Hold) -> None:
        """Pass the gate of an `exec`, and follow it from there. On a worker."""
        runtime = self._follow(draft, record, hold)
        if passage.run([draft]) and runtime:
            self._forget(runtime)

    def _follow(self, draft: Event, record: ExecRecord, hold: Hold) -> ProcessId | None:
        """Begin while the runtime is held: it has no child yet. None: nothing will be told."""
        runtime = self._runtime(record)
        if self._joins is None or runtime is None:
            return None
        init, name = (draft.container and draft.container.pid) or 0, _name(draft.container)
        if not init:  # a container that is not known
            return None
        mnt = self._to_join(init, record)
        if not self._keep(runtime, _Followed(draft, record.uid, bool(mnt) and _brings_processes(name), hold)):
            return None
        try:
            self._joins.follow(runtime.pid, record.start_ns, mnt, init)
        except OSError as error:
            log.warning("how an exec ends will not be told: %s", error)
            self._drop(runtime)
            return None
        if not hold.is_open or not (record.start_ns or self._context.proc.is_alive(runtime)):
            self._forget(runtime)  # what it did before it was followed was not seen
            return None
        return runtime

    def _runtime(self, record: ExecRecord) -> ProcessId | None:
        try:
            return record.process or self._context.proc.identify(record.tgid)
        except NotReadable:
            return None

    def _to_join(self, init: int, record: ExecRecord) -> int:
        """Return the mount namespace that will be joined, as it is now; 0: unknown, or the runtime's own."""
        try:
            theirs = self._context.proc.namespace(init, "mnt")
            ours = record.namespaces.get("mnt") or self._context.proc.namespace(record.tid, "mnt")
        except NotReadable:
            return 0
        return theirs if theirs and theirs != ours else 0

    def _keep(self, runtime: ProcessId, followed: _Followed) -> bool:
        with self._lock:
            if followed.uid and self._of_user[followed.uid] >= _OF_ONE_USER:
                return False
            if len(self._followed) >= _LIMIT:  # of the oldest the process will be told, and not its words
                self._take(next(iter(self._followed)))
            self._take(runtime)  # denied, it may try again
            self._followed[runtime] = followed
            self._of_user[followed.uid] += 1
            return True

    def _forget(self, runtime: ProcessId) -> None:
        if self._joins:
            self._joins.forget(runtime.pid)
        self._drop(runtime)

    def _drop(self, runtime: ProcessId) -> _Followed | None:
        with self._lock:
            return self._take(runtime)

    def _take(self, runtime: ProcessId) -> _Followed | None:
        if followed := self._followed.pop(runtime, None):
            self._of_user[followed.uid] -= 1
            if not self._of_user[followed.uid]:
                del self._of_user[followed.uid]
        return followed

    def read(self) -> None:
        """Tell of those that came out since the last call."""
        for outcome in self._joins.read() if self._joins else ():
            self.tell(outcome)

    def tell(self, outcome: ExecOutcome) -> None:
        """Publish `exec_ended`, if it is known whose process that was."""
        followed = self._drop(outcome.runtime)
        if followed and not followed.was_let_go:
            return
        if followed:
            container, process, told = followed.told.container, followed.told.process, followed.told.exec_id
            reason = None if outcome.pid else _reason(outcome, container, certain=followed.certain)
        elif outcome.pid and (container := self._container_of(outcome)):
            process, told, reason = None, node.exec_id(outcome.runtime), None
        else:
            return
        if container is None:
            return
        ended = replace(
            event("exec_ended", "none", container),
            exec_id=told,
            process=replace(process or Process(), pid=outcome.pid) if process or outcome.pid else None,
            exit=_exit(outcome),
            reason=reason,
        )
        self._context.listeners.publish(ended)

    def _container_of(self, outcome: ExecOutcome) -> Container | None:
        """Return the container in which a worker before us let it run."""
        for lifecycle in self.lifecycles:
            for entry in lifecycle.containers():
                init = entry.init_watch.process if entry.init_watch else None
                if init and init.pid == outcome.init and init.start_time <= outcome.runtime.start_time:
                    return entry.container
        return None


def _exit(outcome: ExecOutcome) -> Exit:
    if outcome.pid is None or outcome.status is None:
        return Exit()
    code, signal = pidfd.decode_wait_status(outcome.status)
    lived = None if outcome.lived is None else round(outcome.lived, 3)
    return Exit(code, signal, signal == _SIGKILL and outcome.oom_victim, None, lived)


def _reason(outcome: ExecOutcome, container: Container | None, *, certain: bool) -> Reason:
    said = "the exec failed" if certain and outcome.status else "no process of it was seen"
    return Reason(f"{said}: {_name(container) or 'the runtime'} {how(outcome.status)}")


def _name(container: Container | None) -> str:
    return (container and container.runtime) or ""


def _brings_processes(name: str) -> bool:
    """Are its processes the host's? Those of runsc run on a kernel of its own."""
    return any(known in name for known in ("runc", "crun", "youki"))
