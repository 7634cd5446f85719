"""The command line. Only this package prints, and only `main` exits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from startgate.cli import log
from startgate.errors import KernelUnsupported, StartgateError, UsageError

_output = click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or one JSON object a line.",
)
_exec_records = click.option(
    "--exec-records",
    type=click.Choice(["auto", "table", "queue", "procfs"]),
    default="auto",
    show_default=True,
    help="How the command lines of held runtimes are learnt.",
)
_host_root = click.option(
    "--host-root",
    envvar="STARTGATE_HOST_ROOT",
    default="/",
    metavar="DIR",
    help="Where the host's root directory is mounted, for startgate in a container.",
)
_filter = click.option("--filter", "keep", metavar="CEL", help="Show only events that match the expression.")
_runtimes = click.option(
    "--runtime", "runtimes", multiple=True, metavar="PATH", help="A further runtime binary."
)
_hold_timeout = click.option(
    "--hold-timeout",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Hold no start longer than this.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="startgate")
@click.option("--verbose", "-v", is_flag=True, help="Tell more on stderr.")
def app(verbose: bool) -> None:
    """See every container start and stop on this host, before the container runs."""
    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)


@app.command()
@_output
@_filter
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--for", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="End after a time.")
@_runtimes
@_exec_records
@_host_root
@_hold_timeout
@click.option("--demo", is_flag=True, help="Run a small container, so that there is something to see.")
def watch(
    *,
    output: str,
    keep: str | None,
    count: int | None,
    seconds: float | None,
    demo: bool,
    **watcher: Any,
) -> None:
    """Show containers as they start and stop, until Ctrl-C.

    With --demo, and without a terminal, it ends after the demo.
    """
    from startgate.cli.watch import Watch  # noqa: PLC0415  (each command imports what it needs)
    from startgate.watcher import Watcher  # noqa: PLC0415

    try:
        watched = Watcher(**watcher)
    except ValueError as error:
        raise UsageError(str(error)) from error
    Watch(watched, output, keep=keep, count=count, seconds=seconds).run(
        demo=demo, end_with_demo=not sys.stdout.isatty()
    )


@app.command()
@_output
@_exec_records
def demo(output: str, exec_records: str) -> None:
    """Run a small container with the host's runtime, no engine needed, and show its events."""
    from startgate.cli.watch import Watch  # noqa: PLC0415
    from startgate.watcher import Watcher  # noqa: PLC0415

    Watch(Watcher(exec_records=exec_records), output).run(demo=True, end_with_demo=True)


@app.command()
@_output
@_host_root
def doctor(output: str, host_root: str) -> None:
    """Tell what this host offers and what is missing; exit 0 only if containers can be held."""
    from startgate.cli.doctor import examine, show  # noqa: PLC0415

    probes = examine(host_root)
    show(probes, output)
    if any(probe.required and not probe.works for probe in probes):
        raise SystemExit(3)


@app.command()
@_output
@_filter
@_runtimes
@_exec_records
@_host_root
@_hold_timeout
@click.option(
    "--hang-limit",
    type=click.FloatRange(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Replace the worker when it is silent for this long while something waits for it.",
)
def daemon(**options: Any) -> None:
    """Watch as the node's agent: a supervisor replaces the worker that dies or hangs.

    SIGTERM ends it. SIGUSR2 replaces both by what is installed now; no start is missed meanwhile.
    """
    from startgate.agent.start import become_supervisor  # noqa: PLC0415

    become_supervisor(**options)


@contextmanager
def told_errors() -> Iterator[None]:
    """Tell an error in one sentence, and exit: 1 failure, 2 usage, 3 the host can't."""
    try:
        yield
    except KernelUnsupported as error:
        details = f"\n{error.details}" if error.details else ""
        _fail(f"{error} (startgate doctor tells more){details}", 3)
    except UsageError as error:
        _fail(str(error), 2)
    except (StartgateError, OSError) as error:
        _fail(str(error), 1)


def main() -> None:
    """Run the command line. Exit codes: 1 failure, 2 usage, 3 the host can't."""
    log.configure(logging.WARNING)
    if sys.stdout is None:
        _fail("standard output is closed", 1)
    with told_errors():
        app(prog_name="startgate")


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"startgate: {message}\n")
    sys.exit(code)
