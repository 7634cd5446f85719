"""The configuration file: TOML, `/etc/startgate/config.toml`.

Its hooks run as root, and its rules decide what starts: it has to be root's.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

from startgate.config import tomlfile
from startgate.config.tomlfile import Reader, TomlFile
from startgate.hold import TIMEOUT_LIMIT
from startgate.hooks.config import HookConfig
from startgate.runtimes import environment


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the file may hold. Paths are relative to its directory; None: not set there."""

    hold_timeout: float | None = None
    exec_records: Literal["auto", "table", "queue", "procfs"] | None = None
    runtimes: tuple[str, ...] = ()
    host_root: str | None = None
    actual: bool | None = None
    exec_env: tuple[environment.Name, ...] | None = None
    spool: str | None = None
    policy: tuple[str, ...] = ()
    hook: tuple[HookConfig, ...] = ()


def load(path: str, reader: Reader = tomlfile.read_trusted) -> Settings:
    """Read a configuration file. Raises UsageError, which names file, line and column."""
    file = tomlfile.read(path, reader)
    settings = decode(file)
    base = os.path.dirname(path)
    return msgspec.structs.replace(
        settings,
        runtimes=tuple(os.path.join(base, each) for each in settings.runtimes),
        policy=tuple(os.path.join(base, each) for each in settings.policy),
        spool=os.path.join(base, settings.spool) if settings.spool else None,
    )


def decode(file: TomlFile) -> Settings:
    """Raises UsageError, as `load`."""
    values: dict[str, Any] = dict(file.tables)
    hooks = values.pop("hook", [])
    if not isinstance(hooks, list) or not all(isinstance(hook, dict) for hook in hooks):
        raise file.error("hooks are tables that begin with [[hook]]", file.find("hook"))
    settings = file.decode(values, Settings)
    if settings.hold_timeout is not None and not 0 < settings.hold_timeout <= TIMEOUT_LIMIT:
        message = f"hold_timeout: it must be more than 0, and at most {TIMEOUT_LIMIT} seconds"
        raise file.error(message, file.find("hold_timeout"))
    decoded = tuple(file.decode(hook, HookConfig, "hook", index) for index, hook in enumerate(hooks))
    return msgspec.structs.replace(settings, hook=decoded)
