"""The command lines of OCI runtimes, as engines and people write them. Pure.

runc uses urfave/cli (options end at the first word that is none), crun uses argp
(options and words in any order). Both take ``--opt value`` and ``--opt=value``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import msgspec


@dataclass(frozen=True)
class Options:
    """The options of one level of the command line, of all runtimes together.

    `gnu` are those of crun, which takes any unambiguous beginning of a long option.
    """

    valued: frozenset[str]
    flags: frozenset[str]
    gnu: frozenset[str]

    def knows(self, name: str) -> bool:
        """Is it known whether the option takes a value?"""
        return name in self.valued or name in self.flags

    def full_name(self, name: str) -> str:
        """Undo an abbreviation, as getopt_long(3) does."""
        if self.knows(name):
            return name
        matches = [option for option in self.gnu if option.startswith(name)]
        return matches[0] if len(matches) == 1 else name


def _options_of(valued: str, flags: str, gnu: str) -> Options:
    always = {"--help", "--usage", "--version", "-h", "-v", "-V", "-?"}
    return Options(
        frozenset(valued.split()), frozenset(flags.split()) | always, frozenset(gnu.split()) | always
    )


# runc 1.0-1.5, crun 1.x, youki and runsc. Whether an option that is in no list takes a value is not
# known: where that matters the command line is in doubt.
_GLOBAL = _options_of(
    valued="--root -r --log -l --log-format --criu --rootless --cgroup-manager --log-level --debug-log "
    "--debug-log-format --platform --network --overlay2 --file-access --panic-log --debug-command "
    "--strace-syscalls --strace-log-size --user-log --host-uds --num-network-channels --watchdog-action",
    flags="--debug --systemd-cgroup --overlay --strace --alsologtostderr --allow-packet-socket-write",
    gnu="--cgroup-manager --debug --log --log-format --log-level --root --rootless --systemd-cgroup",
)
_START = _options_of(
    valued="--bundle -b --pid-file -p --console-socket --console --pidfd-socket --preserve-fds --user-log "
    "--config -f --image-path --work-path --parent-path --manage-cgroups-mode --empty-ns --page-server "
    "--status-fd --lsm-profile --lsm-mount-context --keep-fd --log-fd --criu --pass-fd --exec-fd",
    flags="-d --detach --keep --no-pivot --no-new-keyring --no-subreaper --no-mount-fallback "
    "--tcp-established --tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job --file-locks "
    "--auto-dedup --lazy-pages --tcp-close",
    gnu="--bundle --config --console-socket --detach --keep --no-new-keyring --no-pivot --no-subreaper "
    "--pid-file --preserve-fds",
)
_EXEC = _options_of(
    valued="--console-socket --console --pidfd-socket --cwd --env -e --user -u --additional-gids -g "
    "--process -p --pid-file --process-label --apparmor --cap -c --preserve-fds --cgroup "
    "--internal-pid-file --pass-fd --exec-fd",
    flags="-t --tty -d --detach --no-new-privs --ignore-paused --no-subreaper --clear-groups",
    gnu="--apparmor --cap --cgroup --console-socket --cwd --detach --env --no-new-privs --pid-file "
    "--preserve-fds --process --process-label --tty --user",
)
_KILL = _options_of(valued="--signal -s", flags="-a --all -r --regex", gnu="--all --regex")
_DELETE = _options_of(valued="", flags="-f --force -r --regex", gnu="--force --regex")
_NO_OPTIONS = _options_of(valued="", flags="", gnu="")
GLOBAL_VALUED = _GLOBAL.valued
"""The options before the command that take a value."""
_OPTIONS: dict[str, Options] = {
    "create": _START,
    "run": _START,
    "restore": _START,
    "start": _NO_OPTIONS,
    "pause": _NO_OPTIONS,
    "resume": _NO_OPTIONS,
    "exec": _EXEC,
    "kill": _KILL,
    "delete": _DELETE,
}


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


def parse(argv: list[bytes]) -> Invocation:
    """Tell what a runtime is executed for; never raises, whatever the bytes are.

    A command line that names no container (``runc create --help``) is OTHER.
    """
    if WORDS.isdisjoint(argv):
        return OTHER  # most are: seen at once
    words = [os.fsdecode(word) for word in argv]
    flags, at = _global_options(words)
    if at >= len(words) or not (command := _COMMANDS.get(words[at])):
        return OTHER
    call = _command_line(words, at + 1, command)
    if not call.names or not call.names[0] or _asks_help(flags) or _asks_help(call.options):
        return OTHER
    return _invocation(command, dict(flags), call)


def _global_options(words: list[str]) -> tuple[list[tuple[str, str]], int]:
    """Read the options before the command; return them and the command's index.

    A word that is no command is taken for the value of an option of a newer runtime.
    """
    reading = _Reading(words, _GLOBAL)
    at = reading.read(1)
    while reading.found and at < len(words) and words[at] not in _KNOWN and not reading.found[-1][1]:
        at = reading.read(at + 1)
    return reading.found, at


class _Reading:
    """The options of one level of a command line, read word by word."""

    def __init__(self, words: list[str], level: Options) -> None:
        self.words = words
        self.level = level
        self.found: list[tuple[str, str]] = []
        self.unknown: list[str] = []
        """Options without a value in the same word, of which nobody knows whether the next word is theirs."""

    def read(self, at: int) -> int:
        """Read options from `at` on; return the index of the first word that is none."""
        while at < len(self.words) and (word := self.words[at]).startswith("-") and word != "-":
            at += 1
            if word == "--":
                break
            for name, value in _split(word, self.level):
                if value is None and name in self.level.valued and at < len(self.words):
                    self.found.append((name, self.words[at]))
                    at += 1
                    continue
                self.found.append((name, value or ""))
                if value is None and not self.level.knows(name):
                    self.unknown.append(name)
        return at


def _split(word: str, level: Options) -> list[tuple[str, str | None]]:
    """Split one word into options; the value is None where none is attached."""
    name, equals, value = word.partition("=")
    attached = value if equals else None
    if name.startswith("--"):
        return [(level.full_name(name), attached)]
    if len(name) > 2 and level.knows("-" + name):
        return [("-" + name, attached)]  # Go's flag package (runc, runsc): -root is --root
    if equals and len(name) == 2:
        return [(name, attached)]
    return _cluster(word, level) or [(name, attached)]


def _cluster(word: str, level: Options) -> list[tuple[str, str | None]]:
    """Split -dbBUNDLE, as getopt does: flags, then one option with the rest as its value.

    Empty when a letter is none of the options: then it is a long one with one dash.
    """
    found: list[tuple[str, str | None]] = []
    for index, letter in enumerate(word[1:], 2):
        option = "-" + letter
        if option in level.valued:
            return [*found, (option, word[index:] or None)]
        if option not in level.flags:
            return []
        found.append((option, None))
    return found


class _Call(NamedTuple):
    """What follows the command."""

    options: list[tuple[str, str]]
    names: list[str]
    doubt: str | None = None


def _command_line(words: list[str], at: int, command: Command) -> _Call:
    """Split what follows the command: options may stand on both sides of the id."""
    reading = _Reading(words, _OPTIONS[command.value])
    at = reading.read(at)
    if command is Command.EXEC:  # what follows the id is the container's, options too
        rest = words[at + 1 :]
        names = words[at : at + 1] + (rest[1:] if rest[:1] == ["--"] else rest)
        return _Call(reading.found, names, reading.unknown[0] if reading.unknown else None)
    names, certain = [], []  # all words that are no options; those that are no option's value either
    while at < len(words):
        names.append(words[at])
        if words[at - 1] not in reading.unknown:
            certain.append(words[at])
        at = reading.read(at + 1)
    if command is Command.KILL:
        return _Call(reading.found, names)
    # One name is all they take: so a word that may be an option's value is one if there is another.
    if certain or len(names) < 2:
        return _Call(reading.found, certain[-1:] or names)
    return _Call(reading.found, names, reading.unknown[0])


def _asks_help(options: list[tuple[str, str]]) -> bool:
    return any(name in ("--help", "-h", "--version", "-v") for name, _ in options)


def _invocation(command: Command, flags: dict[str, str], call: _Call) -> Invocation:
    given, names = dict(call.options), call.names
    executes, doubtful = command is Command.EXEC, call.doubt is not None
    return Invocation(
        command=command,
        id="" if doubtful else names[0],
        root=flags.get("--root", flags.get("-r")),  # -r, -l, -p: youki
        log=flags.get("--log", flags.get("-l")),
        log_format=flags.get("--log-format"),
        bundle=given.get("--bundle", given.get("-b")),
        config=given.get("--config", given.get("-f")) if command.starts else None,
        pid_file=given.get("--pid-file", given.get("-p") if command.starts else None) or None,
        detach="--detach" in given or "-d" in given,
        signal=given.get("--signal", given.get("-s", names[1] if len(names) > 1 else None))
        if command is Command.KILL
        else None,
        process=given.get("--process", given.get("-p")) if executes else None,
        arguments=tuple(names) if doubtful else tuple(names[1:]) if executes else (),
        options=tuple(call.options) if executes else (),
        doubt=call.doubt,
    )
