"""The way through the daemon's agent: `watch`, `ps` and `inspect` where there is one, `status` always.

What is asked twice is held once: a `watch` beside a daemon holds no start a second time, and needs no root.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from startgate.api import model
from startgate.cli import logfmt
from startgate.cli.ending import ENDS, ended_by
from startgate.cli.table import Table
from startgate.cli.watch import lines_by, write
from startgate.client import Client, Refusal, Unavailable
from startgate.errors import StartgateError
from startgate.events import Event, printable, timestamp
from startgate.foreign import json_line, one_line
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Key
from startgate.lines import line
from startgate.running import Running


def containers(client: Client) -> list[Running] | None:
    """Return what `ps` shows; None: the agent can't look, so we do it ourselves."""
    try:
        return [_running(one) for one in client.containers()]
    except Unavailable:
        return None
    except Refusal as error:
        if error.status == 503:
            return None
        raise


def container(client: Client, wanted: str, *, oci: bool) -> tuple[Running, bytes | None] | None:
    """Return what `inspect` shows, with its config.json; None: the agent can't look."""
    try:
        found = client.container(wanted, oci=oci)
    except Unavailable:
        return None
    except Refusal as error:
        if error.status == 404:
            message = f"no container {printable(wanted)!r} runs here (startgate ps lists them)"
            raise StartgateError(message) from error
        if error.status == 503:
            return None
        raise
    return _running(found), json.dumps(found.oci).encode() if oci else None


def _running(one: model.Running) -> Running:
    process = ProcessId(one.container.pid or 0, one.start_time)
    key = Key(one.root, one.container.id)
    return Running(key, process, one.container, None, one.status == "running")


def place_of(client: Client) -> str | None:
    """Return where to begin to watch through the daemon; None: it does not hold, or can't be asked."""
    with suppress(Unavailable, Refusal):
        status = client.status()
        if status.holds and status.journal:
            return status.journal.last
    return None


@dataclass(frozen=True)
class Shown:
    """What `watch` is to show, and how."""

    output: str
    keep: str | None
    count: int | None
    seconds: float | None
    existing: bool
    types: tuple[str, ...] = ()
    """None: all."""
    wide: bool = False


def watch(client: Client, place: str, shown: Shown) -> None:
    """Show what the daemon tells, as `watch` does. Raises StartgateError where the filter is wrong."""
    show = _printer(shown.output, wide=shown.wide)
    with ended_by((*ENDS, signal.SIGALRM)):
        with suppress(OSError):  # a full disk
            sys.stderr.write(f"watching through the daemon ({one_line(client.path)})\n")
            sys.stderr.flush()
        if shown.seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, max(shown.seconds, 1e-6))
        try:
            for number, event in enumerate(_events(client, place, shown), 1):
                show(event, number)
                if number == shown.count:
                    return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _events(client: Client, place: str, shown: Shown) -> Iterator[Event]:
    if shown.existing and (not shown.types or "existing" in shown.types):
        yield from _existing(client, place, shown.keep)
    for received in client.events(after=place, types=shown.types, filter=shown.keep, follow=True):
        if shown.existing or received.event.type != "existing":
            yield received.event


def _existing(client: Client, place: str, keep: str | None) -> Iterator[Event]:
    """Yield the containers that were there at a place in the journal; the journal tells what came since."""
    found = client.containers(filter=keep)
    came = client.events(after=place, types=("creating", "created", "existing"))
    since = {received.event.container.id for received in came if received.event.container}
    for one in found:
        if one.container.id not in since:
            yield Event(type="existing", time=timestamp(), gate="none", container=one.container)


def _printer(output: str, *, wide: bool) -> Callable[[Event, int], object]:
    if output == "json":
        return lambda event, number: write(line(event, number))
    if output == "logfmt":
        return lambda event, number: write(logfmt.line(event, number))
    table = Table(lines_by(write), wide=wide)
    return lambda event, number: table.row(event)


def show_status(status: model.Status, output: str) -> None:
    """Print how the daemon and its agent are."""
    if output == "json":
        sys.stdout.write(json_line(status).decode() + "\n")
        return
    rows = [("holds", "yes" if status.holds else "no: no daemon's worker holds now")]
    for daemon in status.daemons:
        before = f", {daemon.workers - 1} before it" if daemon.workers > 1 else ""
        rows.append(("worker", f"{daemon.pid}, since {daemon.since}{before}"))
        rows.append(("runtimes", ", ".join(daemon.runtimes) or "none installed yet"))
    if kept := status.journal:
        rows.append(("journal", f"{kept.oldest or '-'} to {kept.newest or '-'}, {_size(kept.bytes)}"))
    else:
        rows.append(("journal", "none yet"))
    rows += [("agent", f"since {status.agent_since}, version {status.version}"), ("node", status.node)]
    sys.stdout.write("".join(f"{name:<9} {one_line(text)}\n" for name, text in rows))


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def socket_path() -> str:
    """Return where the agent listens."""
    return os.environ.get("STARTGATE_SOCKET") or model.SOCKET
