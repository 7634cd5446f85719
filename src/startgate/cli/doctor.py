"""`doctor`: what this kernel and host offer, what is missing, what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import msgspec

from startgate.errors import KernelUnsupported, NotReadable
from startgate.foreign import json_line, one_line
from startgate.hold import Hold
from startgate.inherited.resources import Opened
from startgate.keeper.keeper import Keeper
from startgate.keeper.protocol import Held
from startgate.kernel import features
from startgate.kernel.process import Proc
from startgate.records import SOURCES, layout, procfs
from startgate.runtimes.find import RuntimeBinaries

_ANY_WIDTH = 10_000
"""A pipe has no width."""
_PATIENCE = 2.0


class Probe(msgspec.Struct, frozen=True):
    """One thing that was tried. `missing` says what it costs to do without."""

    name: str
    works: bool
    required: bool
    result: str
    missing: str = ""


_SOURCE_COSTS = {
    "table": "argument lists are read from /proc: slower, on worker threads",
    "queue": "nothing, where `table` works (it needs kprobes)",
    "procfs": "nothing, where another source works",
}


def examine(host_root: str) -> list[Probe]:
    """Try everything; each probe says what it found."""
    return list(_probes(host_root))


def _probes(host: str) -> Iterator[Probe]:
    yield Probe("kernel", True, False, f"{os.uname().release} {os.uname().machine}")
    yield _probe(
        "the host's /proc", lambda: _host_proc(host), required=True, missing="no process can be looked at"
    )
    yield _probe(
        "other processes",
        lambda: _other_processes(host),
        required=True,
        missing="no container can be looked at: run as root, with CAP_SYS_PTRACE",
    )
    yield _probe(
        "files of other users",
        _other_users,
        missing="bundles in directories that another uid keeps to itself are not read",
    )
    yield _probe(
        "processes of other users",
        _kill,
        missing="a container of another uid that is refused at `created` is not killed",
    )
    yield _probe(
        "fanotify permission events", _hold, required=True, missing="no container can be held: run as root"
    )
    sources = [_source(name, host) for name in SOURCES]
    yield from sources
    if not any(source.works for source in sources):
        yield Probe("an exec record source", False, True, "none works", "command lines can't be learnt")
    yield _probe(
        "exit codes of reaped processes",
        _exit_info,
        missing="exit codes come from BPF, else only from zombies (PIDFD_GET_INFO needs Linux 6.15)",
    )
    yield _probe(
        "runtime binaries",
        lambda: _binaries(host),
        missing="none installed yet; they are watched once they appear",
    )


def _probe(name: str, attempt: Callable[[], str], *, missing: str, required: bool = False) -> Probe:
    try:
        return Probe(name, True, required, attempt())
    except (KernelUnsupported, NotReadable, OSError) as error:
        return Probe(name, False, required, str(error), missing)


def _source(name: str, host: str) -> Probe:
    return _probe(f"exec records: {name}", lambda: _records(name, host), missing=_SOURCE_COSTS[name])


def _host_proc(host: str) -> str:
    features.check_host_root(host)
    where = "" if features.in_initial_pid_namespace() else ", from a child pid namespace"
    return os.path.join(host, "proc") + where


def _other_processes(host: str) -> str:
    features.check_other_processes(host)
    return "their root directories and namespaces can be reached"


def _other_users() -> str:
    features.check_other_users()
    return "they can be read, whatever their modes"


def _kill() -> str:
    features.check_kill()
    return "they can be killed"


def _hold() -> str:
    group = features.open_group(report_tid=True)
    try:
        with features.held_exec(group):
            return "an execution was held and let go"
    finally:
        group.close()


def _records(name: str, host: str) -> str:
    """The keeper itself holds a command of ours, and we answer."""
    resources = Opened(name).keep(_PATIENCE)
    try:
        with features.executing(resources.keeper.commands):
            held = _held(resources.keeper)
            with Hold(resources.keeper.commands, held):
                proc = Proc(host)
                known = layout.decode(held.record) if held.record else None
                record = procfs.complete(proc, known or procfs.identify(proc, held.pid))
    finally:
        resources.close()
    if record.arguments[-1:] != [b"argument"]:
        raise KernelUnsupported(f"a held command line was read wrongly: {record.arguments!r}")
    return "the keeper held a command, and its arguments were read"


def _held(keeper: Keeper) -> Held:
    while True:
        message = keeper.commands.receive()
        if isinstance(message, Held):
            return message
        if message is None:
            raise KernelUnsupported("the keeper ended")


def _exit_info() -> str:
    if not features.has_exit_info():
        raise KernelUnsupported("PIDFD_GET_INFO does not tell them")
    return "PIDFD_GET_INFO tells them"


def _binaries(host: str) -> str:
    group = features.open_group()
    binaries = RuntimeBinaries(group, host=host)
    try:
        binaries.mark_all()
        if not binaries.paths:
            raise KernelUnsupported("none found")
        return ", ".join(binaries.paths)
    finally:
        binaries.close()
        group.close()


def show(probes: list[Probe], output: str) -> None:
    """Print the probes."""
    if output == "json":
        sys.stdout.write(json_line(probes).decode() + "\n")
        return
    from rich.console import Console  # noqa: PLC0415  (50 ms that `watch` does not need)
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("", "WHAT", "RESULT", "WITHOUT IT", box=None, pad_edge=False)
    for probe in probes:
        sign = "[green]ok[/]" if probe.works else "[red]NO[/]" if probe.required else "[yellow]no[/]"
        table.add_row(sign, probe.name, escape(one_line(probe.result)), probe.missing)
    Console(width=None if sys.stdout.isatty() else _ANY_WIDTH, highlight=False).print(table)
