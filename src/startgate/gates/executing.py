"""The work of the exec command gate: `exec`, a process that joins a running container."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from msgspec.structs import replace

from startgate.errors import BundleError, NotReadable
from startgate.events import Container, Event, Process, printable
from startgate.foreign import Fitting
from startgate.gates import actual, keys
from startgate.gates.context import Context, event
from startgate.gates.created import Created
from startgate.gates.execs import Execs
from startgate.gates.refusal import explain
from startgate.gates.repeats import Repeats
from startgate.gates.view import View
from startgate.hold import Hold
from startgate.kernel import node, spawn
from startgate.lifecycle import State
from startgate.passage import Passage
from startgate.records import ExecRecord
from startgate.runtimes import describe, environment, oci
from startgate.runtimes.commandline import Invocation

log = logging.getLogger(__name__)


_WRITER_LIMIT, _PAUSE = 0.5, 0.002
"""Seconds: for how long the writer of a pipe is waited for, and how often it is looked into."""


class Executing:
    """Handles `exec`. Runs on workers."""

    def __init__(self, context: Context, created: Created, execs: Execs) -> None:
        self._context = context
        self._created = created
        self._execs = execs
        self._repeats = Repeats(context.proc)

    def at_command(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> None:
        """Pass the exec command gate."""
        with hold:
            with suppress(NotReadable):
                runtime = record.process or self._context.proc.identify(record.tgid)
                self._context.lifecycle.joins(runtime)
            container = container_of(self._context, call, path, record)
            process = None if call.process else process_of(call, container, self._context)
            draft = draft_of(self._context, container, process, record)
            passage = Passage(
                hold,
                self._context.listeners,
                [draft],
                refusing=lambda verdict: explain(self._context.proc, call, record, verdict),
            )
            if self._tell_first(call, path, record):
                container = container_of(self._context, call, path, record)
                draft = replace(draft, container=container)
            if call.process and not call.doubt:
                draft = replace(draft, process=self._read_process(call, record, container))
            if self._repeats.seen(record, call.id, draft.process, hold):
                passage.skip()
                return
            hooks = spawn.hooks_behind(self._context.proc, record.tgid)
            if draft.process and hooks:
                draft = replace(draft, process=replace(draft.process, from_hooks=hooks))
            self._execs.run(passage, draft, record, hold)

    def _tell_first(self, call: Invocation, path: str, record: ExecRecord) -> bool:
        """What is joined runs, so it has been created: was that told only now?"""
        if record.uid or not self._context.lifecycle.knows(call.id):
            return False
        entry = self._context.lifecycle.find(keys.look_up(self._context.proc, call, path, record).key)
        if entry is None or entry.state is not State.CREATING:
            return False
        self._created.late_if_it_runs(entry, tid=record.tid)
        return True

    def _read_process(self, call: Invocation, record: ExecRecord, container: Container) -> Process | None:
        """Return what the file says that takes the command line's place; None: it is not known."""
        with View(self._context.proc, record.tid) as view:
            path = view.absolute(call.process or "")
            try:
                process = _read(view, path)
                known = self._context.capabilities
                return describe.process_of(process, container, known, self._context.exec_env)
            except (OSError, BundleError) as error:
                log.warning("exec in %s: %s: %s", printable(call.id), path, printable(str(error)))
                return None


def _read(view: View, path: str) -> oci.OciProcess:
    """Read a process file, which may be a pipe: then what is in it stays there, for the runtime.

    Raises OSError or BundleError.
    """
    until = time.monotonic() + _WRITER_LIMIT
    while (data := view.peek(path)) is not None:
        try:
            return oci.decode_process(data)
        except BundleError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
    return oci.decode_process(view.read(path, oci.CONFIG_LIMIT))


def draft_of(context: Context, container: Container, process: Process | None, record: ExecRecord) -> Event:
    """Return an `exec` as far as it is known."""
    try:
        identity = node.exec_id(record.process or context.proc.identify(record.tgid))
    except NotReadable:
        identity = None
    return replace(event("exec", "exec", container), process=process, exec_id=identity)


def container_of(context: Context, call: Invocation, path: str, record: ExecRecord) -> Container:
    """Return the container that a command names, as far as it is known. On a worker. Raises NotReadable.

    Where the command line is in doubt it is the one that any of its words names, if that is one.
    """
    names = [call.id] if call.doubt is None else call.arguments
    find = keys.of_user if record.uid else keys.look_up
    meant = {find(context.proc, replace(call, id=name), path, record).key for name in names}
    known = [entry for key in meant if (entry := context.lifecycle.find(key))]
    if len(known) == 1:
        return actual.of_running(context, known[0])
    unknown = ("id",) if call.doubt else ()
    return Container(id=printable(call.id), runtime_path=printable(path), unknown=unknown)


def process_of(call: Invocation, container: Container, context: Context) -> Process | None:
    """What the command line says, where there is no --process file. None: it is in doubt."""
    if call.doubt:
        return None
    options, fitting = dict(call.options), Fitting()
    added = [_capability(value) for name, value in call.options if name in ("--cap", "-c")]
    bounding = {*container.bounding_capabilities, *added}
    variables = [value for name, value in call.options if name in ("--env", "-e")]
    inherited = container.no_new_privileges if container.rootfs else None  # is its config.json known?

    def given(*names: str) -> str | None:
        return printable(next((options[name] for name in names if name in options), "")) or None

    return Process(
        argv=fitting.words("argv", call.arguments),
        user=given("--user", "-u") or container.user,
        cwd=given("--cwd") or container.cwd,
        tty=_is_set(options, "--tty", "-t"),
        privileged=describe.has_all(bounding, context.capabilities),
        capabilities=fitting.words("capabilities", sorted({*container.capabilities, *added})),
        bounding_capabilities=fitting.words("bounding_capabilities", sorted(bounding)),
        no_new_privileges=_is_set(options, "--no-new-privs") or inherited,
        apparmor=given("--apparmor") or container.apparmor,
        selinux=given("--process-label") or container.selinux,
        env=fitting.pairs("env", environment.chosen(context.exec_env, variables, call.arguments)),
        truncated=fitting.cut,
    )


def _capability(name: str) -> str:
    name = printable(name).upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def _is_set(options: dict[str, str], *names: str) -> bool:
    """Is a flag set? Runtimes take --tty=false, too."""
    return any(options[name].lower() not in ("0", "f", "false", "no") for name in names if name in options)
