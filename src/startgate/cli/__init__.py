"""The command line. Only this package prints, and only `main` exits."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from startgate.cli import journal, log, options
from startgate.cli.install import install, uninstall
from startgate.cli.policy import CONFIG
from startgate.cli.policy import config as config_group
from startgate.cli.policy import policy as policy_group
from startgate.cli.trace import trace as trace_command
from startgate.errors import KernelUnsupported, StartgateError, UsageError
from startgate.foreign import one_line

if TYPE_CHECKING:
    from startgate.client import Client
    from startgate.config.settings import Settings

_SOCKET = "/run/startgate/api.sock"


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 failure, 2 usage, 3 this host can't (startgate doctor tells why).",
)
@click.version_option(package_name="startgate")
@click.option("--verbose", "-v", is_flag=True, help="Tell more on stderr.")
@click.pass_context
def app(context: click.Context, verbose: bool) -> None:
    """See every container start and stop on this host, before the container runs."""
    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)
    if context.invoked_subcommand is None:
        from startgate.cli.welcome import text  # noqa: PLC0415

        sys.stdout.write(text())


@app.command()
@options.event_output
@options.event_types
@options.filtering
@options.wide
@options.full_exec
@options.fold_exec
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option(
    "--for",
    "seconds",
    type=options.Seconds(min=0, max=10**8),
    metavar="SECONDS",
    help="End after a time.",
)
@options.watching
@options.local
@click.option("--demo", is_flag=True, help="Run a small container, so that there is something to see.")
def watch(
    *,
    output: str,
    types: tuple[str, ...],
    keep: str | None,
    wide: bool,
    full_exec: bool,
    fold_exec: float | None,
    count: int | None,
    seconds: float | None,
    commands: tuple[str, ...],
    policies: tuple[str, ...],
    config_path: str | None,
    demo: bool,
    local: bool,
    **watcher: Any,
) -> None:
    """Show containers as they start and stop, until Ctrl-C.

    Where a daemon's agent answers, and no option says how to hold, the daemon tells: nothing is held twice.

    With --demo, and without a terminal, it ends after the demo. SIGHUP, or a change of the
    files, loads policy and configuration again.
    """
    client = None if local or demo or _says_how_to_hold() else _agent()
    if client:
        from startgate.cli import remote  # noqa: PLC0415  (each command imports what it needs)

        if place := remote.place_of(client):
            existing = bool(watcher["existing"])
            how = remote.Shown(output, keep, count, seconds, existing, types, wide)
            remote.watch(client, place, how)
            return
    from startgate.cli.watch import Watch, deciding  # noqa: PLC0415
    from startgate.watcher import Watcher  # noqa: PLC0415

    path = _configure(watcher, config_path)
    with deciding(lambda: Watcher(**watcher), path, policies, commands) as watched:
        shown: dict[str, Any] = {"types": types, "keep": keep, "wide": wide}
        shown |= {"full_exec": full_exec, "fold_exec": fold_exec}
        watch = Watch(watched, output, count=count, seconds=seconds, **shown)
        watch.run(demo=demo, end_with_demo=not sys.stdout.isatty())


@app.command()
@options.daemon_output
@options.filtering
@options.full_exec
@options.fold_exec
@options.watching
@click.option(
    "--hang-limit",
    type=options.Seconds(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Replace the worker when it is silent for about this long while something waits for it.",
)
@click.option(
    "--absent",
    type=click.Choice(["allow", "deny"]),
    default="allow",
    show_default=True,
    help="While no worker can be asked: let starts go, or deny those that a rule or hook fails closed for.",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Also append each event to a spool in memory (/run/startgate/spool): startgate agent's journal.",
)
def daemon(*, hang_limit: float, absent: str, config_path: str | None, **watch: Any) -> None:
    """Watch as the node's agent. The keeper, which holds the tasks, replaces a worker that dies or hangs.

    SIGTERM ends it. SIGUSR2 replaces both by what is installed now; no start is missed meanwhile.
    """
    from startgate.agent.start import become_keeper  # noqa: PLC0415

    path = _configure(watch, config_path)
    become_keeper(hang_limit=hang_limit, absent=absent, config_path=path, **watch)


_OF_SHOWING = ("output", "types", "keep", "wide", "count", "seconds", "existing", "local")


def _says_how_to_hold() -> bool:
    """Is there an option that a daemon's agent could not follow?"""
    context = click.get_current_context()
    return any(
        context.get_parameter_source(name) is not ParameterSource.DEFAULT
        for name in context.params
        if name not in _OF_SHOWING
    )


def _agent() -> Client | None:
    """Return a client where an agent listens, and we may ask. Nothing is imported where none does."""
    path = os.environ.get("STARTGATE_SOCKET") or _SOCKET
    if not os.access(path, os.W_OK):
        return None
    from startgate.client import Client  # noqa: PLC0415

    return Client(path)


def _configure(watcher: dict[str, Any], path: str | None) -> str | None:
    """Add what the configuration file sets; return its path, None where there is none."""
    if path is None and not os.path.lexists(CONFIG):  # a link that leads nowhere is a mistake
        return None
    from startgate.config import settings  # noqa: PLC0415  (not for those who have none)

    path = path or CONFIG
    watcher |= _unless_given(settings.load(path))
    return path


def _unless_given(settings: Settings) -> dict[str, Any]:
    """Return the watcher's options that the file sets and the command line does not."""
    context = click.get_current_context()
    set_there = {
        "hold_timeout": settings.hold_timeout,
        "exec_records": settings.exec_records,
        "host_root": settings.host_root,
        "runtimes": settings.runtimes or None,
        "actual": settings.actual,
        "exec_env": settings.exec_env,
        "spool": settings.spool,
    }
    return {
        name: value
        for name, value in set_there.items()
        if value is not None and context.get_parameter_source(name) is ParameterSource.DEFAULT
    }


@app.command()
@options.output
@options.filtering
@click.option("--all", "-a", "sandboxes", is_flag=True, help="Also the sandboxes (pause containers) of pods.")
@options.host_root
@options.local
def ps(output: str, keep: str | None, sandboxes: bool, host_root: str, local: bool) -> None:
    """List the containers that are there now. Those of pods as namespace/pod/container."""
    from startgate.cli.containers import scan, show  # noqa: PLC0415

    found = None
    if client := None if local or host_root != "/" else _agent():
        from startgate.cli import remote  # noqa: PLC0415

        found = remote.containers(client)
    show(scan(host_root) if found is None else found, output, keep, sandboxes=sandboxes)


@app.command()
@click.argument("container", type=options.text)
@options.output
@click.option("--oci", is_flag=True, help="Also the whole config.json, as key `oci`.")
@options.host_root
@options.local
def inspect(container: str, output: str, oci: bool, host_root: str, local: bool) -> None:
    """Tell everything about one container.

    CONTAINER is its id, a unique beginning of it, its name, or pod/container.
    """
    from startgate.cli.containers import choose, scan, tell  # noqa: PLC0415

    if client := None if local or host_root != "/" else _agent():
        from startgate.cli import remote  # noqa: PLC0415

        if told := remote.container(client, container, oci=oci):
            tell(told[0], output, told[1])
            return
    looked = scan(host_root, actual=True)
    found = choose(looked, container)
    tell(found, output, looked.config_json(found) if oci else None)


@app.command()
@options.output
def status(output: str) -> None:
    """Tell how the daemon and its agent are. Exit code 0 only if starts are held, else 1."""
    from startgate.cli import remote  # noqa: PLC0415
    from startgate.client import Client  # noqa: PLC0415

    found = Client(remote.socket_path()).status()
    remote.show_status(found, output)
    if not found.holds:
        raise SystemExit(1)


@app.command()
@options.output
@options.exec_records
def demo(output: str, exec_records: str) -> None:
    """Run a small container and show its events. It needs a runtime only, no engine."""
    from startgate.cli.watch import Watch  # noqa: PLC0415
    from startgate.watcher import Watcher  # noqa: PLC0415

    Watch(Watcher(exec_records=exec_records, existing=False), output).run(demo=True, end_with_demo=True)


@app.command()
@options.output
@options.host_root
def doctor(output: str, host_root: str) -> None:
    """Tell what this host offers and what is missing. Exit code 0 only if containers can be held, else 3."""
    from startgate.cli.doctor import examine, show  # noqa: PLC0415

    probes = examine(host_root)
    show(probes, output)
    if any(probe.required and not probe.works for probe in probes):
        raise SystemExit(3)


@app.command()
def schema() -> None:
    """Print the JSON schema of events: docs/events.md."""
    from startgate.contract import text  # noqa: PLC0415

    sys.stdout.write(text())


app.add_command(trace_command)
app.add_command(install)
app.add_command(uninstall)
app.add_command(policy_group)
app.add_command(config_group)
app.add_command(journal.agent)
app.add_command(journal.verify)
app.add_command(journal.history)


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
    _open_closed()
    log.configure(logging.WARNING)
    if sys.stdout is None:
        _fail("standard output is closed", 1)
    with told_errors():
        app(prog_name="startgate")


def _open_closed() -> None:
    """Where stdin or stderr is closed, put /dev/null: its number must not become another file's."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    # Not number 2: python-build-standalone's libffi may have it, for reading, from its first import on.
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  (for as long as we live)


def _fail(message: str, code: int) -> None:
    lines = map(one_line, message.split("\n"))  # it may name what others wrote
    sys.stderr.write("startgate: " + "\n".join(lines) + "\n")
    sys.exit(code)
