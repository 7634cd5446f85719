"""A start as its command line tells it: before any of its files is read."""

from __future__ import annotations

import posixpath

from startgate.errors import NotReadable
from startgate.events import Caller, Container, printable
from startgate.gates.context import Context
from startgate.hold import Hold
from startgate.lifecycle import Entry, Key
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Invocation


def expect_certain(call: Invocation) -> None:
    """Raises NotReadable where it is not known which container a command starts."""
    if call.doubt:
        raise NotReadable(f"the runtime's option {printable(call.doubt)} is not known")


def begin(
    context: Context, call: Invocation, path: str, record: ExecRecord, hold: Hold, *, key: Key
) -> Entry:
    """Return the container that is being created from now on. Raises NotReadable, Overloaded."""
    entry = Entry(
        key=key,
        invocation=call,
        runtime=record.process or context.proc.identify(record.tgid),
        container=outline(context, call, path, record),
        command=hold,
        arguments=record.arguments,
    )
    context.lifecycle.begin(entry)
    return entry


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
    )


def _caller(context: Context, record: ExecRecord) -> Caller | None:
    try:
        comm = record.parent_comm or context.proc.stat(record.ppid).comm
    except NotReadable:
        return None
    return Caller(record.ppid, printable(comm))
