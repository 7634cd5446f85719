"""The command lines of OCI runtimes, as engines and people write them. Pure.

runc uses urfave/cli (options end at the first word that is none), crun uses argp
(options and words in any order). Both take ``--opt value`` and ``--opt=value``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

# Options that take a value, of runc 1.0-1.5, crun 1.x, youki and runsc together. An option
# that is in no list takes none: so it is with all other options of these programs.
_GLOBAL = frozenset(
    "--root --log --log-format --criu --rootless --cgroup-manager --log-level "
    "--debug-log --debug-log-format --platform --network --overlay2 --file-access "
    "--panic-log --debug-command --strace-syscalls --strace-log-size --user-log --host-uds "
    "--num-network-channels --watchdog-action --systemd-cgroup-path".split()
)
_START = frozenset(
    "--bundle -b --pid-file --console-socket --preserve-fds --user-log --config -f "
    "--image-path --work-path --parent-path --manage-cgroups-mode --empty-ns --page-server "
    "--status-fd --lsm-profile --lsm-mount-context --cgroup-ns --keep-fd --log-fd".split()
)
_EXEC = frozenset(
    "--console-socket --cwd --env -e --user -u --additional-gids -g --process -p --pid-file "
    "--process-label --apparmor --cap -c --preserve-fds --cgroup --internal-pid-file".split()
)
_VALUES: dict[str, frozenset[str]] = {
    "create": _START,
    "run": _START,
    "restore": _START,
    "exec": _EXEC,
    "kill": frozenset({"--signal", "-s"}),
}


class Command(Enum):
    """What a runtime binary is executed for, as far as it matters here."""

    CREATE = "create"
    RUN = "run"
    RESTORE = "restore"
    START = "start"
    EXEC = "exec"
    KILL = "kill"
    OTHER = "other"
    """Everything that neither starts nor ends a container: answered at once."""

    @property
    def starts(self) -> bool:
        """Does it bring a new container into being?"""
        return self in _STARTING


_STARTING = frozenset({Command.CREATE, Command.RUN, Command.RESTORE})
_COMMANDS = {command.value: command for command in Command if command is not Command.OTHER}
_KNOWN = frozenset(_COMMANDS) | frozenset(
    "checkpoint delete do events features help info init list pause ps resume spec state "
    "tar update version wait".split()
)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One runtime command. Paths are as written: relative ones are not resolved."""

    command: Command
    id: str = ""
    root: str | None = None
    """The runtime's state directory (``--root``), None for its default."""
    log: str | None = None
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


OTHER = Invocation(Command.OTHER)


def parse(argv: list[bytes]) -> Invocation:
    """Tell what a runtime is executed for; never raises, whatever the bytes are.

    A command line that names no container (``runc create --help``) is OTHER.
    """
    words = [os.fsdecode(word) for word in argv]
    flags, at = _global_options(words)
    if at >= len(words) or not (command := _COMMANDS.get(words[at])):
        return OTHER
    options, names = _command_line(words, at + 1, command)
    if not names or not names[0] or _asks_help(flags) or _asks_help(options):
        return OTHER
    return _invocation(command, dict(flags), options, names)


def _global_options(words: list[str]) -> tuple[list[tuple[str, str]], int]:
    """Read the options before the command; return them and the command's index.

    A word that is no command is taken for the value of an option of a newer runtime.
    """
    found, at = _options(words, 1, _GLOBAL)
    while found and at < len(words) and words[at] not in _KNOWN and not found[-1][1]:
        more, at = _options(words, at + 1, _GLOBAL)
        found += more
    return found, at


def _options(words: list[str], at: int, valued: frozenset[str]) -> tuple[list[tuple[str, str]], int]:
    """Read options from `at` on; return them and the index of the first word that is none."""
    found: list[tuple[str, str]] = []
    while at < len(words) and (word := words[at]).startswith("-") and word != "-":
        at += 1
        if word == "--":
            break
        for name, value in _split(word, valued):
            if value is None and name in valued and at < len(words):
                found.append((name, words[at]))
                at += 1
            else:
                found.append((name, value or ""))
    return found, at


def _split(word: str, valued: frozenset[str]) -> list[tuple[str, str | None]]:
    """Split one word into options; the value is None where none is attached."""
    name, equals, value = word.partition("=")
    attached = value if equals else None
    if name.startswith("--"):
        return [(_full_name(name, valued), attached)]
    if "-" + name in valued:  # runsc: Go's flag package takes -root for --root
        return [("-" + name, attached)]
    if equals and len(name) == 2:
        return [(name, attached)]
    return _cluster(word, valued)


def _full_name(name: str, valued: frozenset[str]) -> str:
    """GNU getopt takes any unambiguous beginning of a long option."""
    if name in valued:
        return name
    matches = [option for option in valued if option.startswith(name)]
    return matches[0] if len(matches) == 1 and len(name) > 4 else name


def _cluster(word: str, valued: frozenset[str]) -> list[tuple[str, str | None]]:
    """Split -dbBUNDLE, as getopt does: flags, then one option with the rest as its value."""
    found: list[tuple[str, str | None]] = []
    for index, letter in enumerate(word[1:], 2):
        option = "-" + letter
        if option in valued:
            return [*found, (option, word[index:] or None)]
        found.append((option, None))
    return found


def _command_line(words: list[str], at: int, command: Command) -> tuple[list[tuple[str, str]], list[str]]:
    """Split what follows the command: options may stand on both sides of the id."""
    valued = _VALUES.get(command.value, frozenset())
    options, at = _options(words, at, valued)
    if command is Command.EXEC:  # what follows the id is the container's, options too
        rest = words[at + 1 :]
        return options, words[at : at + 1] + (rest[1:] if rest[:1] == ["--"] else rest)
    names: list[str] = []
    while at < len(words):
        names.append(words[at])
        more, at = _options(words, at + 1, valued)
        options += more
    # One name is all they take: words before it are values of a newer runtime's options.
    return options, names[-1:] if command is not Command.KILL else names


def _asks_help(options: list[tuple[str, str]]) -> bool:
    return any(name in ("--help", "-h", "--version", "-v") for name, _ in options)


def _invocation(
    command: Command, flags: dict[str, str], options: list[tuple[str, str]], names: list[str]
) -> Invocation:
    given = dict(options)
    return Invocation(
        command=command,
        id=names[0],
        root=flags.get("--root"),
        log=flags.get("--log"),
        bundle=given.get("--bundle", given.get("-b")),
        config=given.get("--config", given.get("-f")),
        pid_file=given.get("--pid-file") or None,
        detach="--detach" in given or "-d" in given,
        signal=given.get("--signal", given.get("-s", names[1] if len(names) > 1 else None))
        if command is Command.KILL
        else None,
        process=given.get("--process", given.get("-p")) if command is Command.EXEC else None,
        arguments=tuple(names[1:]) if command is Command.EXEC else (),
        options=tuple(options) if command is Command.EXEC else (),
    )
