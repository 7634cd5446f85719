"""`agent`, `history` and `verify`: the journal on the command line."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

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
def agent(spool: str, directory: str, keep_days: int, keep_size: int) -> None:
    """Keep the journal: take what the daemon spools, until a signal. docs/journal.md."""
    from startgate.cli.agent import run  # noqa: PLC0415

    run(spool, directory, keep_days, keep_size)


@click.command()
@_spool
@_journal
@click.option("--head", metavar="ROW:HASH", help="What an earlier run printed: is that row still the same?")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(spool: str, directory: str, head: str | None, output: str) -> None:
    """Is the journal complete, and as it was written? A sentence for each finding.

    Exit codes: 0 it is, 1 it is not, 2 it can't be told.
    """
    from startgate.cli.verify import show  # noqa: PLC0415

    sys.exit(0 if show(directory, spool, head, output) else 1)
