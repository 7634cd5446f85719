"""The command lines of OCI runtimes, as engines and people write them. Pure."""

from __future__ import annotations

import os
import posixpath
from enum import Enum

import msgspec

from startgate.runtimes import lenient, words
from startgate.runtimes.lenient import Call
from startgate.runtimes.options import ANY, CRUN, RUNC, Runtime, Takes

GLOBAL_VALUED = frozenset(name for name, option in ANY.general.items() if option.takes is Takes.VALUE)
"""The options before the command that take a value."""


class Command(Enum):
    """What a runtime binary is executed for, as far as it matters here."""

    CREATE = "create"
    RUN = "run"
    RESTORE = "restore"
    START = "start"
    EXEC = "exec"
    KILL = "kill"
    DELETE = "delete"
    PAUSE = "pause"
    RESUME = "resume"
    OTHER = "other"
    """Everything that leaves containers as they are: answered at once."""

    @property
    def starts(self) -> bool:
        """Does it bring a new container into being?"""
        return self in _STARTING


OF_CONTAINERS = frozenset({Command.START, Command.KILL, Command.DELETE, Command.PAUSE, Command.RESUME})
"""Those that concern a container that is there."""
_STARTING = frozenset({Command.CREATE, Command.RUN, Command.RESTORE})
_COMMANDS = {command.value: command for command in Command if command is not Command.OTHER}
WORDS = frozenset(map(os.fsencode, _COMMANDS))
"""One of these is in each command line that is not OTHER."""
SETTLING_WORDS = frozenset({b"start", b"delete"})
"""Of these, those that concern containers which are being created only."""
_KNOWN = frozenset(_COMMANDS) | frozenset(
    "checkpoint do events features help info init list ps spec state tar update version wait".split()
)


class Invocation(msgspec.Struct, frozen=True):
    """One runtime command. Paths are as written: relative ones are not resolved."""

    command: Command
    id: str = ""
    root: str | None = None
    """The runtime's state directory (``--root``), None for its default."""
    log: str | None = None
    log_format: str | None = None
    bundle: str | None = None
    """None: the caller's working directory."""
    config: str | None = None
    """crun's ``--config``: the configuration's file, when it is not BUNDLE/config.json."""
    pid_file: str | None = None
    detach: bool = False
    signal: str | None = None
    """The signal of `kill` as written: ``9``, ``KILL``, ``SIGKILL``; None: SIGTERM."""
    process: str | None = None
    """exec's ``--process``: the file of an OCI process."""
    arguments: tuple[str, ...] = ()
    """exec: the command to execute in the container."""
    options: tuple[tuple[str, str], ...] = ()
    """exec: the other options with their values ("" for flags)."""
    doubt: str | None = None
    """An option that nobody here knows, by which the words after it can be read in two ways. Then `id`
    is empty, and `arguments` are all words of which one may be it."""


OTHER = Invocation(Command.OTHER)
_UNSET = frozenset("0 f F FALSE false False".split())


def parse(argv: list[bytes], path: str = "") -> Invocation:
    """Tell what a runtime is executed for; never raises, whatever the bytes are.

    `path` is the runtime's, where it is known: its name tells how it reads options.
    A command line that names no container (``runc create --help``) is OTHER.
    """
    if WORDS.isdisjoint(argv):
        return OTHER  # most are: seen at once
    line = [os.fsdecode(word) for word in argv]
    runtime = _runtime(posixpath.basename(path) or posixpath.basename(line[0]))
    flags, rest = _general(line, runtime)
    if not rest or not (command := _COMMANDS.get(rest[0])):
        return OTHER
    call = _call(rest[1:], command, runtime)
    if not call.names or not call.names[0] or _asks_help(flags) or _asks_help(call.options):
        return OTHER
    given = dict(call.options)
    if "--regex" in given:  # crun's: what it means is none of ours
        return OTHER
    return _invocation(command, dict(flags), given, call)


def _runtime(name: str) -> Runtime:
    """Which runtime reads so? Others are links to them, copies, and programs that execute them."""
    if "crun" in name:
        return CRUN
    return RUNC if "runc" in name else ANY


def _general(line: list[str], runtime: Runtime) -> tuple[list[tuple[str, str]], list[str]]:
    """Read the options before the command; return them, and the rest from the command on."""
    if runtime is not ANY:
        try:
            return (words.go if runtime is RUNC else words.gnu)(line[1:], runtime.general)
        except words.Misread:
            pass  # a newer one may know the option
    reading = lenient.Reading(line, ANY.general)
    at = reading.read(1)
    # A word behind an option that nobody knows is its value, if it is no command.
    while at < len(line) and line[at] not in _KNOWN and line[at - 1] in reading.unknown:
        at = reading.read(at + 1)
    return reading.found, line[at:]


def _call(line: list[str], command: Command, runtime: Runtime) -> Call:
    """Read what follows the command."""
    executes, level = command is Command.EXEC, runtime.of(command.value)
    try:
        if runtime is RUNC:
            split = words.go(line if executes else words.reordered(line, level), level)
        elif runtime is CRUN:
            split = words.gnu(line, level)
        else:
            raise words.Misread
        # A newer runc may know an option behind the id; crun reads none there.
        if executes or runtime is CRUN or not _has_options(split.rest[1:]):
            return Call(*split)
    except words.Misread:
        pass  # a newer one may know the option
    return lenient.call(line, ANY.of(command.value), executes=executes, kills=command is Command.KILL)


def _has_options(rest: list[str]) -> bool:
    return any(len(word) > 1 and word.startswith("-") for word in rest)


def _asks_help(given: list[tuple[str, str]]) -> bool:
    return any(name in ("--help", "--usage", "--version") and value != "false" for name, value in given)


def _invocation(command: Command, flags: dict[str, str], given: dict[str, str], call: Call) -> Invocation:
    names = call.names
    executes, doubtful = command is Command.EXEC, call.doubt is not None
    return Invocation(
        command=command,
        id="" if doubtful else names[0],
        root=flags.get("--root"),
        log=flags.get("--log"),
        log_format=flags.get("--log-format"),
        bundle=given.get("--bundle"),
        config=given.get("--config") if command.starts else None,
        pid_file=given.get("--pid-file") or None,
        detach=given.get("--detach", "false") not in _UNSET,
        signal=given.get("--signal", names[1] if len(names) > 1 else None)
        if command is Command.KILL
        else None,
        process=given.get("--process") if executes else None,
        arguments=tuple(names) if doubtful else tuple(names[1:]) if executes else (),
        options=tuple(call.options) if executes else (),
        doubt=call.doubt,
    )
