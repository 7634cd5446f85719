"""Runtime commands of users who are not root: held and told of, and nothing more.

Whatever a user says may be a lie, made to harm others. So all of it is apart from what is root's:
the containers that are known, the threads, the limits. Nothing is marked for a user, no file is
written, and read are only files that the user owns, on local file systems. No memory of theirs is
read either, and so no command line but from the exec record: a page may be as slow as a file.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import posixpath
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from startgate import engines
from startgate.errors import BundleError, NotReadable, Overloaded
from startgate.events import Container, Deny, Event, Process, printable
from startgate.gates import host, inits, keys
from startgate.gates.begin import begin, begun_before, expect_certain, is_the_same, outline, start_of
from startgate.gates.callers import Line, line_of
from startgate.gates.context import Context, Job, event, runtime_path
from startgate.gates.created import Created
from startgate.gates.execs import Execs
from startgate.gates.executing import container_of, draft_of, process_of
from startgate.gates.failure import find_users_log, path_of_log
from startgate.gates.freezing import TOLD, Freezing
from startgate.gates.repeats import Repeats
from startgate.gates.turns import Turns
from startgate.gates.view import digest_of
from startgate.hold import Hold
from startgate.inherited.notes import Notes
from startgate.kernel.local import LocalFiles
from startgate.lifecycle import Entry, Key, Lifecycle, Start, State
from startgate.passage import Passage, failed
from startgate.policy.patch import Patch
from startgate.records import ExecRecord
from startgate.runtimes import commandline, describe, oci, state
from startgate.runtimes.commandline import OF_CONTAINERS, Command, Invocation
from startgate.runtimes.signals import signal_number
from startgate.workers import Workers

log = logging.getLogger(__name__)

FILE_LIMIT = 1 << 20
"""Bytes of a user's file."""
CONTAINERS, CONTAINERS_OF_ONE = 1000, 500
"""Containers that are followed at once."""
_THREADS = 8


class Rootless:
    """Decides on the commands of users, as `CommandGate` does on root's."""

    def __init__(self, context: Context, unsettled: Callable[[int], object], execs: Execs) -> None:
        """`unsettled`: see `Lifecycle`; users' containers have one of their own."""
        self._execs = execs
        self._context = dataclasses.replace(
            context,
            lifecycle=Lifecycle(unsettled, CONTAINERS),
            workers=Workers(limit=_THREADS, spare=1),
            housekeeping=Workers(limit=_THREADS, spare=1),
            notes=Notes(),
        )
        self._seekers = Workers(limit=_THREADS, spare=1)
        self._created = Created(self._context, inits.by_users_files, marks=False)
        self._freezing = Freezing(self._context)
        self._repeats = Repeats(context.proc)
        self._turns = Turns(context.listeners)
        for workers in self._pools():
            workers.start()

    def _pools(self) -> tuple[Workers, ...]:
        return self._context.workers, self._context.housekeeping, self._seekers

    @property
    def lifecycle(self) -> Lifecycle:
        """Users' containers."""
        return self._context.lifecycle

    def close(self) -> None:
        """Let the threads end."""
        for workers in self._pools():
            workers.close()

    def decide(self, record: ExecRecord, hold: Hold) -> Job | None:
        """Return what is to be done while the task is held; None: nothing. Never waits."""
        if not record.uid or not record.complete:
            return None  # uid 0 here is root of a container, or of a user namespace: nobody of the host
        call = commandline.parse(record.arguments, hold.path)
        if call.command is Command.OTHER:
            return None
        path = runtime_path(self._context.proc, record, hold)
        if call.command in OF_CONTAINERS:
            return self._on_container(call, path, record, hold)
        if os.path.basename(path) == "conmon":
            return None
        executing = call.command is Command.EXEC
        work = self._executing if executing else self._creating
        owed = self._context.listeners.fails_closed("exec" if executing else "creating")
        return self._turn(record.uid, hold, lambda: work(call, path, record, hold), owed=owed)

    def _on_container(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> Job | None:
        """Decide on what concerns a container that is there, as `CommandGate` does for root."""
        key = keys.of_user(self._context.proc, call, path, record).key
        if call.command is Command.START:
            return self._on_start(key, record, hold)
        if call.command in TOLD:
            work = self._freezing.decide(call.command, key, record, hold)
            return self._turn(record.uid, hold, work) if work else None
        return self._on_end(call, key, record, hold)

    def _on_end(self, call: Invocation, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        """Before `kill` and `delete`: follow the init, else nobody could tell how it ended."""

        def note() -> None:
            if call.command is Command.KILL:
                self._context.lifecycle.signal(key, signal_number(call.signal))

        def work() -> None:
            with hold:
                if entry:
                    self._created.expect_end(entry)
                note()

        entry = self._context.lifecycle.without_init(key)
        if entry:
            return self._turn(record.uid, hold, work)
        note()
        return None

    def _on_start(self, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        if (entry := self._context.lifecycle.find(key)) and entry.verdict:
            hold.deny()  # it was before: there is no later gate at which it could be
            return None
        entry = self._context.lifecycle.to_start(key)
        if entry is None or entry.state is State.STOPPED:
            return None
        return self._turn(record.uid, hold, lambda: self._created.at_start(entry, hold))

    def _turn(self, uid: int, hold: Hold, work: Job, *, owed: bool = False) -> Job | None:
        """Have the work done by the threads that are for users: never by the reader itself."""
        if not self._turns.take(uid):
            return None
        hold.fail_closed = owed
        return lambda: self._context.workers.submit(lambda: self._turns.do(uid, hold, work))

    def _creating(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> None:
        """Pass the command gate. On a worker. Raises NotReadable, Overloaded."""
        with hold:
            expect_certain(call)
            named = keys.of_user(self._context.proc, call, path, record)
            call = _absolute(call, path, self._context.proc.working_directory(record.tid))
            start = start_of(self._context, call, path, record, hold, named=named)
            behind = line_of(self._context.proc, record)
            entry, is_new = begun_before(self._context, start, path, behind), False
            if entry is None:
                self._created.ends.settle(start.key)
                entry, is_new = self._begin(start, path, record, behind)
            verdict = self._judge(entry, hold) if is_new else self._go_on(entry, start, hold)
        if verdict:
            self._created.ends.forget(entry)
        elif call.command is not Command.CREATE:  # which comes to `start`
            self._seekers.submit(lambda: self._created.look_for(entry))

    def _go_on(self, entry: Entry, start: Start, hold: Hold) -> Deny | None:
        """A further command of a start that began before: judge it again if it says or reads anything new."""
        digest = self._digest(start)
        if (is_the_same(entry, start) and digest == entry.digest) or not self._created.pass_on(entry, start):
            return None
        return self._judge(entry, hold, again=True)

    def _digest(self, start: Start) -> bytes | None:
        try:
            with LocalFiles(self._context.proc.host, start.key.uid) as files:
                return digest_of(files.read(start.invocation.config or "", FILE_LIMIT))
        except OSError:
            return None

    def _judge(self, entry: Entry, hold: Hold, *, again: bool = False) -> Deny | None:
        passage = Passage(
            hold,
            self._context.listeners,
            [event("creating", "command", entry.container)],
            lambda: self._told(entry),
            patching=_not_changed,
            keep=entry.keep if again else None,
        )
        try:
            self._created.watch_runtime(entry)
            self._describe(entry)
        except BaseException:
            self._context.lifecycle.told(entry)
            self._created.ends.forget(entry)
            raise
        if entry.state is State.STOPPED:
            self._created.ends.disarm(entry)
        return passage.run([event("creating", "command", entry.container)])

    def _told(self, entry: Entry) -> None:
        if end := self._context.lifecycle.told(entry):
            self._created.ends.ended(entry, end)

    def _begin(self, start: Start, path: str, record: ExecRecord, behind: Line) -> tuple[Entry, bool]:
        uids = [entry.key.uid for entry in self._context.lifecycle.containers()]
        if len(uids) >= CONTAINERS or uids.count(record.uid) >= CONTAINERS_OF_ONE:
            raise Overloaded(f"{uids.count(record.uid)} containers of uid {record.uid} are followed already")
        return begin(self._context, start, path, record, behind)

    def _describe(self, entry: Entry) -> None:
        call, container = entry.invocation, entry.container
        try:
            with LocalFiles(self._context.proc.host, entry.key.uid) as files:
                entry.log = find_users_log(files, call.log)
                data = files.read(call.config or "", FILE_LIMIT)
                config, entry.digest = oci.decode_config(data), digest_of(data)
                container = describe.container_of(container, config, self._context.capabilities)
                container = replace(container, host_namespaces=self._shared(entry, config))
                container = engines.identify(
                    container,
                    entry.root,
                    files,
                    list,  # the caller's command line is in a user's memory
                    among=engines.OF_USERS,
                    limit=FILE_LIMIT,
                )
        except (OSError, BundleError, NotReadable) as error:
            log.warning(
                "rootless container %s of uid %d is told without details: %s",
                container.id,
                entry.key.uid,
                printable(str(error)),
            )
        self._context.lifecycle.describe(entry, container)

    def _shared(self, entry: Entry, config: oci.Config) -> tuple[str, ...]:
        """No user may join the host's own namespaces: a path leads to others."""
        asked, ours = oci.namespace_paths(config), self._context.proc.host_namespaces()
        return host.shared_namespaces(asked, entry.namespaces, ours, lambda path: None)

    def _executing(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> None:
        """Pass the exec command gate. On a worker."""
        with hold:
            container = container_of(self._context, call, path, record)
            if container.uid is None:  # none that is known
                unknown = container.unknown
                container = replace(outline(self._context, call, path, record), unknown=unknown)
            process = None if call.process else process_of(call, container, self._context)
            draft = draft_of(self._context, container, process, record)
            passage = Passage(hold, self._context.listeners, [draft])
            if call.process and not call.doubt:
                draft = replace(draft, process=self._read_process(call, record, container))
            if self._repeats.seen(record, call.id, draft.process, hold):
                passage.skip()
            else:
                self._execs.run(passage, draft, record, hold)

    def _read_process(self, call: Invocation, record: ExecRecord, container: Container) -> Process | None:
        path = posixpath.join(self._context.proc.working_directory(record.tid), call.process or "")
        try:
            with LocalFiles(self._context.proc.host, record.uid) as files:
                data = files.read(posixpath.normpath(path), FILE_LIMIT)
            process, known = oci.decode_process(data), self._context.capabilities
            return describe.process_of(process, container, known, self._context.exec_env)
        except (OSError, BundleError) as error:
            log.warning("exec of uid %d in %s: %s", record.uid, printable(call.id), printable(str(error)))
            return None


def _absolute(call: Invocation, path: str, directory: str) -> Invocation:
    """Return the command with its paths resolved, as far as that can be told by their letters."""

    crun = state.flavour(posixpath.basename(path)) is state.CRUN
    bundle = _joined(directory, call.bundle or ".")
    base = bundle if crun else directory  # where crun has gone by the time that it opens the others

    def resolve(given: str | None) -> str | None:
        if given is None:
            return None
        return _joined(base, given) if crun else state.canonical(posixpath.join(base, given))

    return replace(
        call,
        bundle=bundle,
        config=_joined(directory, call.config) if call.config else _joined(bundle, oci.CONFIG),
        pid_file=resolve(call.pid_file),
        root=resolve(call.root),
        log=resolve(path_of_log(call.log)),
    )


def _joined(base: str, path: str) -> str:
    """Join a path to a directory whose own path has no links. A `..` after any other name stays: that name
    may be a link, and such a path is not read."""
    while not path.startswith("/") and (path == ".." or path.startswith("../")):
        base, path = posixpath.dirname(base), path[2:].lstrip("/")
    path = posixpath.join(base, path)
    return path if ".." in path.split("/") else state.canonical(path)


def _not_changed(told: Event, patches: Sequence[Patch]) -> tuple[Event, Deny | None]:
    return failed(told, patches, "a container of a user who is not root is not changed")
