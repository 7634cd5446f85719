"""A start as its command line tells it: before any of its files is read."""

from __future__ import annotations

import posixpath
from itertools import islice

from msgspec.structs import replace

from startgate.errors import NotReadable
from startgate.events import Caller, Container, printable
from startgate.gates.callers import Line
from startgate.gates.context import Context
from startgate.gates.keys import Named
from startgate.hold import Hold
from startgate.kernel import node, spawn
from startgate.kernel.pids import namespace_of
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, Start
from startgate.records import ExecRecord
from startgate.runtimes import state
from startgate.runtimes.commandline import Invocation


def expect_certain(call: Invocation) -> None:
    """Raises NotReadable where it is not known which container a command starts."""
    if call.doubt:
        raise NotReadable(f"the runtime's option {printable(call.doubt)} is not known")


def begin(
    context: Context, start: Start, path: str, record: ExecRecord, behind: Line | None = None
) -> tuple[Entry, bool]:
    """Return the container that is being created from now on, and whether nobody was faster to begin it.

    Raises Overloaded.
    """
    entry = entry_of(context, start, path, record, behind)
    there = context.lifecycle.begin(entry)
    return there, there is entry


def entry_of(
    context: Context, start: Start, path: str, record: ExecRecord, behind: Line | None = None
) -> Entry:
    """Return a start as a container that nobody knows of yet; who is `behind` it may be told later."""
    return Entry(
        key=start.key,
        root=start.root,
        pids=start.pids,
        invocation=start.invocation,
        runtime=start.runtime,
        container=replace(
            outline(context, start.invocation, path, record),
            start_id=node.start_id(start.runtime),
            login_uid=record.loginuid,
            audit_session=record.session,
            started_by_chain=behind.told() if behind else (),
        ),
        command=start.command,
        arguments=start.arguments,
        flavour=start.flavour,
        namespaces=start.namespaces,
    )


def start_of(
    context: Context, call: Invocation, path: str, record: ExecRecord, hold: Hold | None, *, named: Named
) -> Start:
    """Return a command as a start; `hold` is None where it was not held.

    Raises NotReadable when its process is gone.
    """
    process = record.process or context.proc.identify(record.tgid)
    return Start(
        key=named.key,
        root=named.root,
        pids=namespace_of(context.proc, record.tid, record.namespaces.get("pid")),
        invocation=call,
        runtime=process,
        arguments=record.arguments,
        command=hold,
        flavour=state.flavour(posixpath.basename(path)),
        namespaces=record.namespaces or context.proc.namespaces(record.tid),
    )


def begun_before(context: Context, start: Start, path: str, behind: Line) -> Entry | None:
    """Return the start of which this command is a part: crun executes itself again, and a wrapper
    (nvidia-container-runtime) executes the runtime, in its place or below it.

    A hook of config.json may start a container of its own, with the runtime's own binary.
    """
    under_way = {entry.runtime: entry for entry in context.lifecycle.under_way(start.key.id)}
    if not under_way:
        return None
    line = [start.runtime, *ancestors(behind)]
    entry = next((under_way[process] for process in line if process in under_way), None)
    if entry is None or entry.key.uid != start.key.uid:
        return None
    other = entry.runtime != start.runtime and entry.container.runtime_path == printable(path)
    return None if other and entry.arguments[1:] != start.arguments[1:] else entry


_GENERATIONS = 3
"""Between a wrapper and the runtime: a shell, a script's interpreter."""


def ancestors(behind: Line) -> list[ProcessId]:
    """Return the nearest, among which a wrapper of this runtime command is."""
    nearest = [each.process for each in islice(behind, _GENERATIONS)]
    return [process for process in nearest if process.pid > 1]


def is_the_same(entry: Entry, start: Start) -> bool:
    """Does a command that belongs to a start say nothing new? What it reads may be new all the same."""
    return (
        entry.arguments[1:] == start.arguments[1:]  # argv[0] is the wrapper's
        and entry.key == start.key
        and entry.flavour == start.flavour
    )


def outline(context: Context, call: Invocation, path: str, record: ExecRecord) -> Container:
    """Return what is known before the bundle is read."""
    return Container(
        id=printable(call.id),
        runtime=printable(posixpath.basename(path)),
        runtime_path=printable(path),
        bundle=printable(call.bundle) if call.bundle else None,
        rootless=record.uid != 0,
        uid=record.uid,
        started_by=_caller(context, record),
        from_hooks=spawn.hooks_behind(context.proc, record.tgid),
    )


def _caller(context: Context, record: ExecRecord) -> Caller | None:
    try:
        comm = record.parent_comm or context.proc.stat(record.ppid).comm
    except NotReadable:
        return None
    return Caller(record.ppid, printable(comm))
