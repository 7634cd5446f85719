"""The work of the command gate: learn the bundle, arm the later gates, let the runtime go."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from msgspec.structs import replace

from startgate import engines
from startgate.errors import BundleError, NotReadable
from startgate.events import Container, Deny, Event, Reason, printable
from startgate.gates import failure, host, keys
from startgate.gates.begin import begin, begun_before, expect_certain, is_the_same, start_of
from startgate.gates.callers import Line, line_of
from startgate.gates.context import Context, event
from startgate.gates.created import Created
from startgate.gates.patching import Patching
from startgate.gates.refusal import explain
from startgate.gates.untold import lateness
from startgate.gates.view import View, digest_of
from startgate.hold import Hold
from startgate.lifecycle import Entry, Start, State
from startgate.passage import Passage
from startgate.records import ExecRecord
from startgate.runtimes import describe, oci, state
from startgate.runtimes.commandline import Command, Invocation

log = logging.getLogger(__name__)


_OF_FILES = ("name", "image", "labels", "kubernetes", "mounts")
"""What of a container is told by files that its runtime's view leads to."""


class _Sight(NamedTuple):
    """What a runtime is about to read, as it sees it."""

    view: View
    bundle: str
    config: str
    """The path of its config.json."""
    data: bytes | None
    """What is in that; None: it is large, or can't be read."""
    behind: Line
    """Who executed the runtime."""


class Creating:
    """Handles `create`, `run` and `restore`. Runs on workers.

    Where somebody is asked, a command is held until its `creating` is told. Where nobody is, it goes on
    once the later gates are armed and its config.json is read, and is told of then. No later gate
    is passed before that: `Untold`.
    """

    def __init__(self, context: Context, created: Created) -> None:
        self._context = context
        self._created = created
        self._patching = Patching(context, self._describe_config, self._arm_program)

    def at_command(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> None:
        """Pass the command gate. Raises NotReadable when the caller is gone."""
        with hold:
            expect_certain(call)
            named = keys.look_up(self._context.proc, call, path, record)
            start = start_of(self._context, call, path, record, hold, named=named)
            behind = line_of(self._context.proc, record)
            entry = begun_before(self._context, start, path, behind)
            is_new = False
            if entry is None:
                self._created.ends.settle(start.key)
                entry, is_new = begin(self._context, start, path, record)
            verdict = None
            if not is_new:
                verdict = self._go_on(entry, start, record, behind, hold)
            elif self._context.listeners.wants("creating") or not self._created.untold.has_room:
                verdict = self._judge(entry, record, behind, hold)
            else:
                self._let_go(entry, record, behind, hold)
        if verdict:
            self._created.ends.forget(entry)
        elif not entry.gated:
            self._created.look_for(entry)

    def missed(self, call: Invocation, path: str, record: ExecRecord, reason: Reason) -> None:
        """Tell of a start that was not held, and arm the gates that are ahead of it still.

        A callback's refusal is carried out at its first exec. Raises NotReadable, Overloaded.
        """
        expect_certain(call)
        named = keys.look_up(self._context.proc, call, path, record)
        start = start_of(self._context, call, path, record, None, named=named)
        known = self._context.lifecycle.find(start.key)
        if known and known.runtime.start_time >= start.runtime.start_time:
            return  # it was there already when we came
        behind = line_of(self._context.proc, record)
        if begun_before(self._context, start, path, behind):
            return  # it was held as a part of another
        entry, is_new = begin(self._context, start, path, record)
        if not is_new:
            return
        with self._gates(entry, record, behind) as sight:
            self._describe(entry, sight)
            self._context.note(entry)
        self._judge_late(entry, record, reason)
        self._told(entry)
        self._created.look_for(entry, reason=reason)

    def tell_again(self, entry: Entry) -> None:
        """Tell of a start that a worker before us let go, and had not told of yet."""
        caller = entry.container.started_by
        parent = caller.pid if caller else 0
        reason = Reason("the worker that let it go ended right then: it may have told of it, too")
        try:
            with View(self._context.proc, entry.runtime.pid, parent) as view:
                if not self._context.proc.is_alive(entry.runtime):
                    raise NotReadable("its runtime is gone")
                behind = Line(self._context.proc, parent, entry.runtime.start_time)
                self._describe(entry, self._look(entry, view, behind))
        except (NotReadable, OSError) as error:
            log.warning("container %s is not described: %s", entry.container.id, error)
        self._created.untold.tell(entry, replace(_creating(entry), reason=reason))
        self._context.note(entry)

    def _judge_late(self, entry: Entry, record: ExecRecord, reason: Reason) -> None:
        creating = replace(_creating(entry), gate="none", reason=reason)
        said = self._context.listeners.call(creating)
        if said.deny and entry.config:
            entry.verdict = said.deny
            with View(self._context.proc, record.tid, record.ppid) as view:
                bundle = view.absolute(entry.invocation.bundle or ".")
                self._arm_program(entry, view, bundle, entry.config)
        self._context.listeners.publish(replace(creating, policy=creating.policy + said.notes))

    def _go_on(self, entry: Entry, start: Start, record: ExecRecord, behind: Line, hold: Hold) -> Deny | None:
        """A command that is part of a start: what it reads, and only that, is what will run.

        The start is judged again if that is new, and told again if it is refused.
        """
        with View(self._context.proc, record.tid) as view:
            digest = view.digest(self._config_path(start.invocation, view))
        if is_the_same(entry, start) and digest == entry.digest:
            return None
        if not self._created.pass_on(entry, start):
            return None
        return self._judge(entry, record, behind, hold, again=True)

    def _judge(
        self, entry: Entry, record: ExecRecord, behind: Line, hold: Hold, *, again: bool = False
    ) -> Deny | None:
        passage = Passage(
            hold,
            self._context.listeners,
            [_creating(entry)],
            lambda: self._told(entry),
            refusing=lambda verdict: explain(self._context.proc, entry.invocation, record, verdict),
            patching=lambda event, patches: self._patching.patch(entry, record, event, patches),
            keep=entry.keep if again else None,
        )
        with self._gates(entry, record, behind) as sight:
            self._describe(entry, sight)
            self._context.note(entry)
        if entry.state is State.STOPPED:  # killed meanwhile, and disarmed before it was armed
            self._created.ends.disarm(entry)
        return passage.run([_creating(entry)])

    def _let_go(self, entry: Entry, record: ExecRecord, behind: Line, hold: Hold) -> None:
        """Nobody is asked: let the command go once the later gates are armed, and tell of it then."""
        self._created.untold.add(entry)
        hold.before_expiry = lambda: self._tell(entry, hold, late=True)
        with self._gates(entry, record, behind) as sight:
            if sight.data is None:
                with suppress(BundleError):  # `_describe` tells of it
                    self._decode(entry, sight)
            self._context.note(entry, untold=True)
            held_us = hold.held_us
            late = not hold.allow()
            try:
                self._describe_running(entry, sight, record.ppid)
            finally:
                self._tell(entry, hold, held_us=held_us, late=late)
        self._context.note(entry)
        if entry.state is State.STOPPED:
            self._created.ends.disarm(entry)

    def _describe_running(self, entry: Entry, sight: _Sight, parent: int) -> None:
        """The runtime may end meanwhile, and with it what it sees. Its parent sees the same, or we do."""
        error = self._try_to_describe(entry, sight)
        if self._context.proc.is_alive(entry.runtime):
            if error:
                log.warning("container %s is not described: %s", entry.container.id, error)
            return
        for pid in (parent, None):
            with suppress(NotReadable, OSError), View(self._context.proc, pid, parent) as view:
                seen = self._context.proc.namespace(pid or os.getpid(), "mnt")
                if seen == entry.namespaces.get("mnt") and view.has_the_root_of(sight.view):
                    self._describe(entry, sight._replace(view=view))
                    return
        log.warning("container %s is told as far as it is known: its runtime has ended", entry.container.id)
        container = replace(entry.container, unknown=_OF_FILES)
        if entry.config:
            container = describe.container_of(container, entry.config, self._context.capabilities)
        self._context.lifecycle.describe(entry, replace(container, bundle=printable(sight.bundle)))

    def _try_to_describe(self, entry: Entry, sight: _Sight) -> Exception | None:
        try:
            self._describe(entry, sight)
        except (NotReadable, OSError) as error:
            return error
        return None

    def _tell(self, entry: Entry, hold: Hold, *, held_us: int | None = None, late: bool = False) -> None:
        """Tell of a command that was let go; `late`: by its deadline."""
        held_us = hold.held_us if held_us is None else held_us
        event = replace(_creating(entry), held_us=held_us, reason=lateness(hold) if late else None)
        self._created.untold.tell(entry, event)

    def _config_path(self, call: Invocation, view: View) -> str:
        """Runtimes look for --config where they are called, not in the bundle."""
        if call.config is not None:
            return view.absolute(call.config)
        return view.absolute(oci.CONFIG, view.absolute(call.bundle or "."))

    def _told(self, entry: Entry) -> None:
        if end := self._context.lifecycle.told(entry):
            self._created.ends.ended(entry, end)

    @contextmanager
    def _gates(self, entry: Entry, record: ExecRecord, behind: Line) -> Iterator[_Sight]:
        """Arm the gates that are ahead; for the length of the block, see what the runtime sees.

        A start that can't be described is forgotten.
        """
        try:
            self._created.watch_runtime(entry)  # first: a crun that fails ends within a millisecond
            with View(self._context.proc, record.tid, record.ppid) as view:
                sight = self._look(entry, view, behind)
                entry.log = failure.find_log(self._context.proc, entry, view, sight.bundle, record.ppid)
                entry.gated = self._arm(entry, sight)
                yield sight
        except BaseException:
            self._created.untold.drop(entry)
            self._context.lifecycle.told(entry)
            self._created.ends.forget(entry)
            raise

    def _look(self, entry: Entry, view: View, behind: Line) -> _Sight:
        config = self._config_path(entry.invocation, view)
        entry.config, entry.digest = None, None
        if data := view.peek_config(config):
            entry.digest = digest_of(data)
        return _Sight(view, view.absolute(entry.invocation.bundle or "."), config, data, behind)

    def _arm(self, entry: Entry, sight: _Sight) -> bool:
        """Arm the gates. False: no gate is left that could tell the pid."""
        pid_file = self._arm_pid_file(entry, sight.view, sight.bundle)
        program = False
        if not pid_file or self._context.listeners.wants("started"):
            with suppress(BundleError):  # `_describe` tells of it
                self._decode(entry, sight)
            program = self._arm_program(entry, sight.view, sight.bundle, entry.config)
        command = entry.invocation.command
        if command is Command.RESTORE:
            return False  # it runs on before its pid file is written: look for it as well
        return program or command is Command.CREATE  # which comes to `start`, whatever failed here

    def _decode(self, entry: Entry, sight: _Sight) -> oci.Config:
        """Raises BundleError."""
        if entry.config is None:
            entry.config, entry.digest = sight.view.read_config(sight.config, sight.data)
        return entry.config

    def _describe(self, entry: Entry, sight: _Sight) -> None:
        """Complete the record. Raises NotReadable, OSError."""
        view = sight.view
        container = replace(
            entry.container, bundle=printable(sight.bundle), started_by_chain=sight.behind.told()
        )
        try:
            container = self._describe_config(entry, container, self._decode(entry, sight), view)
            container = engines.identify(container, entry.root, view.trusted_files(), view.caller_arguments)
        except BundleError as error:
            log.warning("container %s: %s", container.id, printable(str(error)))
        self._context.lifecycle.describe(entry, container)

    def _describe_config(
        self, entry: Entry, container: Container, config: oci.Config, view: View
    ) -> Container:
        """Return the container with what a config.json says. Raises NotReadable."""
        container = describe.container_of(container, config, self._context.capabilities)
        return host.complete(container, config, view, self._context.proc, entry.namespaces)

    def _arm_pid_file(self, entry: Entry, view: View, bundle: str) -> bool:
        call = entry.invocation
        if not call.pid_file or call.command is Command.RUN:
            return False  # `run` writes its pid file after the first exec: no gate
        # runc resolves it against the caller's working directory, crun against the bundle.
        crun = entry.flavour is state.CRUN
        path = view.absolute(call.pid_file, bundle) if crun else view.by_letters(call.pid_file)
        try:
            place, name = posixpath.split(path)
            directory = view.open_pid_directory(place)
            self._context.pid_files.add(entry, directory, name, in_bundle=place == bundle)
        except (OSError, BundleError) as error:
            self._warn(entry, "its pid file is not watched", error)
            return False
        return True

    def _arm_program(self, entry: Entry, view: View, bundle: str, config: oci.Config | None) -> bool:
        if entry.invocation.command is Command.RESTORE or not config:
            return False  # a restored process executes nothing
        try:
            for fd in view.open_programs(bundle, config):
                try:
                    self._context.programs.add(entry, fd)
                finally:
                    os.close(fd)
        except (OSError, BundleError) as error:
            self._warn(entry, "its first exec is not held", error)
            return False
        return True

    def _warn(self, entry: Entry, what: str, error: Exception) -> None:
        log.warning("container %s: %s: %s", entry.container.id, what, printable(str(error)))


def _creating(entry: Entry) -> Event:
    return event("creating", "command", entry.container)
