"""The manual page, in roff, from the commands themselves: man(7)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

_FILES = (
    ("/etc/startgate/config.toml", "Configuration: rules, hooks, limits. Read where it is there."),
    ("/run/startgate", "What one worker of the daemon leaves to the next, in memory."),
)
_EXIT = (
    ("0", "fine"),
    ("1", "failure"),
    ("2", "usage"),
    ("3", "this host can't: startgate doctor tells why"),
)


def page(app: click.Group, version: str) -> str:
    """Return the page of all commands."""
    return "\n".join(_lines(app, version)) + "\n"


def _lines(app: click.Group, version: str) -> Iterator[str]:
    # As the command line makes it: click keeps the help option of whoever asks first.
    context = click.Context(app, info_name="startgate", **app.context_settings)
    what = app.get_short_help_str(200).rstrip(".")
    yield f'.TH STARTGATE 1 "" "startgate {_text(version)}" "User Commands"'
    yield from (".SH NAME", f"startgate \\- {_text(what[0].lower() + what[1:])}")
    yield from (".SH SYNOPSIS", ".B startgate", _text("[OPTIONS] COMMAND [ARGS]..."))
    yield ".SH OPTIONS"
    yield from _options(app, context)
    yield ".SH COMMANDS"
    yield from _commands(app, context)
    yield ".SH EXIT STATUS"
    yield from _pairs(_EXIT)
    yield ".SH FILES"
    yield from _pairs(_FILES)


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f".SS {_text(inner.command_path)} {_text(usage)}"
        for paragraph in re.split(r"\n\s*\n", (command.help or "").strip()):
            yield from (".PP", _text(" ".join(paragraph.split())))
        yield from _options(command, inner, but="help")


def _options(command: click.Command, context: click.Context, but: str = "") -> Iterator[str]:
    wanted = (parameter for parameter in command.get_params(context) if parameter.name != but)
    records = (parameter.get_help_record(context) for parameter in wanted)
    yield from _pairs(tuple(record for record in records if record and record[1]))


def _pairs(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, meaning in pairs:
        yield from (".TP", f"\\fB{_text(term)}\\fR", _text(meaning))


def _text(text: str) -> str:
    """Return text as roff takes it: no line of it is a request."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
