"""A hook as people write it: `[[hook]]` in a configuration file, `--hook` on the command line."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Literal, get_args

import msgspec

from startgate.errors import UsageError
from startgate.events import printable

HookType = Literal["creating", "created", "started", "exec", "stopped"]
HOOK_TYPES: tuple[HookType, ...] = get_args(HookType)

TIMEOUT_LIMIT = 3600
"""Seconds: the longest `timeout`."""


class HookConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command that is run at events of containers.

    `command` is a list of words, or a string that is split as a shell would. `timeout` is
    in seconds. `match` is a CEL expression over the event. Raises ValueError where a value
    makes no sense.
    """

    on: tuple[HookType, ...]
    command: str | tuple[str, ...]
    name: str = ""
    timeout: float = 1.0
    on_failure: Literal["allow", "deny"] = "allow"
    fail_closed: bool = False
    env: dict[str, str] = {}
    match: str | None = None

    def __post_init__(self) -> None:
        if not self.on:
            raise ValueError(f"`on` is empty: it takes some of {', '.join(HOOK_TYPES)}")
        if not self.words or not self.words[0]:
            raise ValueError("`command` is empty")
        if not 0 < self.timeout <= TIMEOUT_LIMIT:
            raise ValueError(f"`timeout` is {self.timeout:g}: it must be in (0, {TIMEOUT_LIMIT}] seconds")
        if any("\0" in text for text in (*self.words, *self.env, *self.env.values())):
            raise ValueError("`command` and `env` can't hold a NUL character")
        if bad := next((name for name in self.env if not name or "=" in name), None):
            raise ValueError(f"`env` has {bad!r}, which is no name of a variable")

    @property
    def words(self) -> tuple[str, ...]:
        """The command as a list. Raises ValueError for an open quotation."""
        return tuple(shlex.split(self.command)) if isinstance(self.command, str) else self.command

    @property
    def label(self) -> str:
        """Its name, or its program's."""
        return self.name or os.path.basename(self.words[0])

    @property
    def identity(self) -> str:
        """Its name, or its command in one line: what tells it from other hooks."""
        return printable(self.name or shlex.join(self.words)).replace("\n", " ")


def parse_option(text: str) -> HookConfig:
    """Read `--hook TYPE[,TYPE...]=COMMAND`. Raises UsageError."""
    types, equals, command = text.partition("=")
    if not equals:
        raise UsageError(f"--hook {text!r}: it is written TYPE=COMMAND, as in created='logger hello'")
    if unknown := [kind for kind in types.split(",") if kind not in HOOK_TYPES]:
        raise UsageError(f"--hook {text!r}: {unknown[0]!r} is none of {', '.join(HOOK_TYPES)}")
    try:
        return msgspec.convert({"on": types.split(","), "command": command}, HookConfig)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"--hook {text!r}: {error}") from error


def resolve(config: HookConfig, *, missing: bool = False) -> tuple[str, ...]:
    """Return the command with its program's absolute path.

    Raises UsageError when there is none; `missing`: then it may come yet, and fails until it does.
    """
    program, *rest = config.words
    path = shutil.which(program)
    if path is None and missing:
        return config.words
    if path is None:
        raise UsageError(f"hook {config.label}: {program} is no program that can be executed")
    return (os.path.abspath(path), *rest)
