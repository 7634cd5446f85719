"""The command `trace`, as it is typed."""

from __future__ import annotations

from typing import Any

import click

from startgate.cli import options


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--filter", "match", type=options.text, metavar="CEL", help="Trace what matches the expression only."
)
@click.option(
    "--ready-when",
    "ready",
    type=options.text,
    metavar="ptrace|fd|exec|REGEX",
    help="When the tracer is ready: it is attached, it has written to {ready_fd}, it runs, or it prints "
    "a line. [default: what is usual for strace, ltrace, gdb, bpftrace, tcpdump; else exec]",
)
@click.option(
    "--ready-timeout",
    type=options.Seconds(min=0, min_open=True, max=3600),
    default=None,
    metavar="SECONDS",
    help="Wait no longer for it. [default: as long as the start is held]",
)
@click.option("--require", is_flag=True, help="Refuse the start of a container whose tracer is not ready.")
@click.option("--existing", is_flag=True, help="Trace the containers that run already, too.")
@click.option(
    "--grace",
    type=options.Seconds(min=0, max=3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between SIGTERM and SIGKILL, at the end of its container.",
)
@click.option("--raw", is_flag=True, help="Print what tracers print as it is, without the container's name.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N tracers have ended.")
@click.option(
    "--for", "seconds", type=options.Seconds(min=0, max=10**8), metavar="SECONDS", help="End after a time."
)
@options.holding
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[--] TRACER...")
def trace(
    *,
    command: tuple[str, ...],
    ready_timeout: float | None,
    raw: bool,
    count: int | None,
    seconds: float | None,
    existing: bool,
    **given: Any,
) -> None:
    """Start a tracer for each container, before that runs.

    \b
    startgate trace -- strace -f -p {pid} -o {id}.txt
    startgate trace -- bpftrace -e 'tracepoint:syscalls:sys_enter_openat
      /cgroup == {cgroup_id}/ { printf("%s\\n", str(args.filename)); }'

    The container is held until its tracer is ready; docs/trace.md has all placeholders.
    """
    from startgate.cli.traced import Printer, run  # noqa: PLC0415  (each command imports what it needs)
    from startgate.tracing import Tracers  # noqa: PLC0415
    from startgate.watcher import Watcher  # noqa: PLC0415

    printer = Printer(raw, count)
    tracing = {name: given.pop(name) for name in ("match", "ready", "require", "grace")}
    if ready_timeout is not None:
        tracing["ready_timeout"] = ready_timeout
    tracers = Tracers(command, existing=existing, tell=printer.tell, **tracing)
    run(Watcher(existing=existing, **given), tracers, printer, seconds)
