"""`agent`, `history` and `verify`: the journal on the command line."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from startgate.cli import options
from startgate.events import EVENT_TYPES
from startgate.journal.times import moment, size

SPOOL = "/run/startgate/spool"
JOURNAL = "/var/lib/startgate/journal"


class _Moment(click.ParamType[int]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else moment(value, time.time())


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else size(value)


_spool = click.option(
    "--spool",
    type=click.Path(file_okay=False),
    default=SPOOL,
    show_default=True,
    metavar="DIR",
    help="Where the daemon's events come from: its --spool.",
)
_journal = click.option(
    "--journal",
    "directory",
    type=click.Path(file_okay=False),
    default=JOURNAL,
    show_default=True,
    metavar="DIR",
    help="The journal's directory.",
)


@click.command()
@_spool
@_journal
@click.option(
    "--keep-days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="N",
    help="Drop what is older.",
)
@click.option(
    "--keep-size",
    type=_Size(),
    default="8G",
    show_default=True,
    metavar="SIZE",
    help="Drop the oldest where all of it is larger.",
)
@click.option(
    "--socket",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="Where the API is served (docs/api.md). [default: api.sock in $RUNTIME_DIRECTORY, /run/startgate]",
)
@click.option("--no-api", is_flag=True, help="Serve no API, and no metrics.")
@options.host_root
def agent(
    *,
    spool: str,
    directory: str,
    keep_days: int,
    keep_size: int,
    socket: str | None,
    no_api: bool,
    host_root: str,
) -> None:
    """Keep the journal of what the daemon spools, and serve the API.

    Until a signal; it holds nothing, and may end at any time: docs/journal.md.
    """
    from startgate.cli.agent import Api, run  # noqa: PLC0415

    run(spool, directory, keep_days, keep_size, api=None if no_api else Api(socket, host_root))


@click.command()
@_spool
@_journal
@click.option("--head", metavar="ROW:HASH", help="What an earlier run printed: is that row still the same?")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(spool: str, directory: str, head: str | None, output: str) -> None:
    """Is the journal complete, and unaltered?

    A sentence for each finding.

    Exit codes: 0 it is, 1 it is not, 2 it can't be told.
    """
    from startgate.cli.verify import show  # noqa: PLC0415

    sys.exit(0 if show(directory, spool, head, output) else 1)


_since = click.option(
    "--since", type=_Moment(), metavar="TIME", help="From then on: 90s, 15m, 2h, 7d ago, or 2026-11-28T14:00."
)
_until = click.option("--until", type=_Moment(), metavar="TIME", help="Before then.")


@click.group(invoke_without_command=True)
@_journal
@_since
@_until
@options.filtering
@click.option(
    "--container", metavar="NAME", help="Of this container: its id, the beginning of it, or its name."
)
@click.option("--image", metavar="IMAGE", help="Of containers of this image, as the engine shows it.")
@click.option("--pod", metavar="[NAMESPACE/]NAME", help="Of this pod's containers.")
@click.option(
    "--type", "types", multiple=True, type=click.Choice(EVENT_TYPES), help="Of this type. Repeatable."
)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "csv", "perfetto"]),
    default="table",
    show_default=True,
    help="perfetto: a trace for ui.perfetto.dev.",
)
@click.pass_context
def history(context: click.Context, /, directory: str, output: str, **asked: Any) -> None:
    """Show what the journal tells (docs/journal.md)."""
    if context.invoked_subcommand:
        context.obj = directory
        return
    from startgate.cli.history import show  # noqa: PLC0415
    from startgate.journal.history import Query  # noqa: PLC0415

    show(directory, Query(**asked), output)


@history.command()
@_journal
@_since
@_until
@click.option("--size", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@options.output
def top(directory: str, since: int | None, until: int | None, size: int, output: str) -> None:
    """Show what happened most, and the slowest holds.

    Restarts, who started most, out of memory, denials, images.
    """
    from startgate.cli.history import show_top  # noqa: PLC0415
    from startgate.journal.history import Query  # noqa: PLC0415

    show_top(directory, Query(since=since, until=until), size, output)
