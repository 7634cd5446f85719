"""The options that commands share, and what their values may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from startgate.events import EVENT_TYPES
from startgate.hold import TIMEOUT_LIMIT
from startgate.runtimes import environment


def text(value: str) -> str:
    """Return a value that is not empty, as one of an unset variable is."""
    if not value.strip():
        raise click.BadParameter("it is empty.")
    return value


def variable(value: str) -> str:
    """Return the name of an environment variable."""
    if not environment.is_name(value):
        raise click.BadParameter(f"{value!r} names no environment variable.")
    return value


class Seconds(click.FloatRange):
    """A length of time. The range alone takes nan."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail."""
        seconds: float = super().convert(value, param, ctx)
        return self.fail("nan is no length of time.", param, ctx) if math.isnan(seconds) else seconds


FILE = click.Path(exists=True, dir_okay=False)
DIRECTORY = click.Path(exists=True, file_okay=False)

output = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object a line.",
)
event_output = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "logfmt"]),
    default="table",
    show_default=True,
    help="A table for people, one JSON object a line, or key=value pairs.",
)
event_types = click.option(
    "--type",
    "types",
    type=click.Choice(EVENT_TYPES),
    multiple=True,
    metavar="TYPE",
    help="Show events of this type only: created, stopped, denied, ... Repeatable.",
)
wide = click.option("--wide", is_flag=True, help="In a table: image and pod columns, and whole lines.")
daemon_output = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json", "none"]),
    default="table",
    show_default=True,
    help="A table for people, one JSON object a line, or nothing: with --spool.",
)
filtering = click.option(
    "--filter",
    "keep",
    type=text,
    metavar="CEL",
    help="Show only what matches the expression (docs/events.md).",
)
full_exec = click.option(
    "--full-exec",
    is_flag=True,
    help="With JSON: `exec` and other short events have all of their container, not only its names.",
)
fold_exec = click.option(
    "--fold-exec",
    type=Seconds(min=0, max=86_400),
    metavar="SECONDS",
    help="Tell of the same command that is executed again and again, and ends with 0, once in such a time. "
    "0: tell of each. Default: 60 for a table, else 0.",
)
local = click.option(
    "--no-daemon",
    "--local",
    "local",
    is_flag=True,
    help="Look at this host directly, even where a daemon's agent could tell (docs/api.md).",
)
exec_records = click.option(
    "--exec-records",
    type=click.Choice(["auto", "table", "queue", "procfs"]),
    default="auto",
    show_default=True,
    help="How the command lines of held runtimes are learnt.",
)
host_root = click.option(
    "--host-root",
    envvar="STARTGATE_HOST_ROOT",
    type=DIRECTORY,
    default="/",
    metavar="DIR",
    help="Where the host's root directory is mounted, for startgate in a container.",
)

_WATCHING = (
    click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        type=text,
        metavar="PATH",
        help="A further runtime binary. Repeatable.",
    ),
    exec_records,
    host_root,
    click.option(
        "--hold-timeout",
        type=Seconds(min=0, min_open=True, max=TIMEOUT_LIMIT),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help="Hold no start longer than this.",
    ),
    click.option(
        "--hook",
        "commands",
        multiple=True,
        metavar="TYPE=CMD",
        help="Run a command at each event of a type: created='logger hello' (docs/hooks.md). Repeatable.",
    ),
    click.option(
        "--policy",
        "policies",
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="Rules that refuse, warn or change (docs/policy.md). Repeatable.",
    ),
    click.option(
        "--config",
        "config_path",
        type=FILE,
        metavar="FILE",
        help="The configuration file. [default: /etc/startgate/config.toml, if it is there]",
    ),
    click.option(
        "--existing/--no-existing",
        default=True,
        show_default=True,
        help="Show the containers that run already, too.",
    ),
    click.option(
        "--actual",
        is_flag=True,
        help="Tell what the kernel says of each container, too (docs/events.md).",
    ),
    click.option(
        "--exec-env",
        multiple=True,
        type=variable,
        default=environment.DEFAULT,
        metavar="NAME",
        help="Tell this environment variable of each `exec`, if it is set. Repeatable. "
        f"[default: {', '.join(environment.DEFAULT)}]",
    ),
)


def holding(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what holds starts, and asks no rules."""
    for option in reversed(_WATCHING[:4]):
        command = option(command)
    return command


def watching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what watches."""
    for option in reversed(_WATCHING):
        command = option(command)
    return command
