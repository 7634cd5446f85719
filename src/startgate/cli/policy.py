"""`policy` and `config`: rules and the configuration file, checked and tried without a container."""

from __future__ import annotations

import os
import sys

import click

from startgate.cli import options
from startgate.errors import UsageError
from startgate.foreign import json_line, one_line

_file = click.argument("file", type=options.FILE)
CONFIG = "/etc/startgate/config.toml"
"""Where the configuration file is, if there is one."""


@click.group()
def policy() -> None:
    """Check and try rules; see docs/policy.md."""


@policy.command()
@_file
def check(file: str) -> None:
    """Compile a policy file; tell what is wrong, and what never matches."""
    from startgate.policy import rules  # noqa: PLC0415

    compiled = rules.load([file]).rules
    for rule in compiled:
        if rule.warning:
            sys.stderr.write(one_line(f"warning: {rule.warning}") + "\n")
        sys.stdout.write(f"{rule.name}: {rule.action} at {', '.join(rule.on)}\n")
    sys.stdout.write(f"{file}: {len(compiled)} rules\n")


@policy.command()
@_file
@click.option("--bundle", type=options.DIRECTORY, metavar="DIR", help="A bundle, as a runtime gets it.")
@click.option(
    "--container",
    "running",
    type=options.text,
    metavar="ID",
    help="A container that is there now: id or name.",
)
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="A further annotation.")
@click.option("--image", type=options.text, metavar="NAME", help="The image, which a bundle does not tell.")
@click.option("--exec", "execute", metavar="COMMAND", help="Try also the rules for this `exec` in it.")
@click.option("--history", is_flag=True, help="All that the journal knows: what would have been refused?")
@click.option("--since", "since", metavar="TIME", help="With --history: from then on (2h, 7d, 2026-11-28).")
@click.option(
    "--journal",
    type=click.Path(file_okay=False),
    default="/var/lib/startgate/journal",
    metavar="DIR",
    help="With --history: the journal's directory.",
)
@options.output
def test(
    *,
    file: str,
    bundle: str | None,
    running: str | None,
    annotations: tuple[str, ...],
    image: str | None,
    execute: str | None,
    history: bool,
    since: str | None,
    journal: str,
    output: str,
) -> None:
    """Show what the rules say of a container. And what they would change; nothing is started.

    Exit code 1: it would be refused.
    """
    if history:
        if bundle is not None or running is not None:
            raise UsageError("give --history alone: it has its containers from the journal")
        from startgate.cli.history import show_replay  # noqa: PLC0415

        sys.exit(1 if show_replay(journal, file, since, output) else 0)
    from startgate.cli.policytest import Trial, show  # noqa: PLC0415

    if bundle is not None and running is None:
        made = Trial.of_bundle(bundle)
    elif running is not None and bundle is None:
        made = Trial.of_container(running)
    else:
        raise UsageError("give either --bundle DIR or --container ID (or --history)")
    trial = made.edited(annotations, image)
    result = trial.judge(file, execute)
    show(result, output)
    if result.verdict == "deny":
        raise SystemExit(1)


@policy.command()
def example() -> None:
    """Print a set of rules that people really want, with comments."""
    from importlib.resources import files  # noqa: PLC0415

    sys.stdout.write(files("startgate.policy").joinpath("rules.toml").read_text())


@policy.command()
@options.output
def fields(output: str) -> None:
    """Print all that rules may ask for. As JSON: the JSON schema of events."""
    from msgspec.json import schema  # noqa: PLC0415

    from startgate.events import Event  # noqa: PLC0415
    from startgate.fields import described  # noqa: PLC0415

    if output == "json":
        sys.stdout.write(json_line(schema(Event)).decode() + "\n")
        return
    width = max(len(path) for path, _ in described(Event))
    sys.stdout.write("".join(f"{path:<{width}}  {what}\n" for path, what in described(Event)))


@click.group()
def config() -> None:
    """Check the configuration file; see docs/policy.md."""


@config.command("check")
@click.argument("file", type=options.FILE, required=False)
def check_config(file: str | None) -> None:
    """Check the configuration file and all that it names. Tell where it is wrong."""
    if file is None and not os.path.lexists(CONFIG):  # a link that leads nowhere is a mistake
        sys.stdout.write(f"{CONFIG}: there is none, so the defaults hold\n")
        return
    file = file or CONFIG
    from startgate.config.active import Active  # noqa: PLC0415
    from startgate.listeners import Listeners  # noqa: PLC0415

    with Active(Listeners(), file) as active:
        settings = active.settings
    sys.stdout.write(f"{file}: {len(settings.policy)} policy files, {len(settings.hook)} hooks\n")
