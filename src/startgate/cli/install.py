"""`install` and `uninstall`: what belongs on a host beside the package itself."""

from __future__ import annotations

import click

from startgate.cli import options

_root = click.option(
    "--root",
    type=click.Path(file_okay=False),
    default="/",
    metavar="DIR",
    help="Put everything below this directory, and touch nothing else: for packages and images.",
)
_prefix = click.option(
    "--prefix",
    type=options.text,
    default="/usr/local",
    show_default=True,
    metavar="DIR",
    help="Where programs and their data are; configuration is always in /etc.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Tell what would be done; change nothing.")


@click.command()
@_root
@_prefix
@click.option(
    "--command",
    "program",
    type=options.text,
    metavar="PATH",
    help="The startgate that the unit runs. [default: this one]",
)
@_dry_run
def install(root: str, prefix: str, program: str | None, dry_run: bool) -> None:
    """Put unit, configuration, completions, manual page in place.

    A user group `startgate`, too. Nothing is started. What was changed since, or was there before, is
    left as it is.
    """
    from startgate.cli.placing import put  # noqa: PLC0415

    put(root, prefix, program, dry_run=dry_run)


@click.command()
@_root
@_prefix
@click.option("--purge", is_flag=True, help="Remove also what was changed since it was installed.")
@_dry_run
def uninstall(root: str, prefix: str, purge: bool, dry_run: bool) -> None:
    """Take away what `install` put in place. What was changed since is left, and told."""
    from startgate.cli.placing import take_away  # noqa: PLC0415

    take_away(root, prefix, purge=purge, dry_run=dry_run)
