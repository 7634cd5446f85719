"""Command lines as people, engines and mistakes write them, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Spelled = list[str]
"""One option: a word, or two."""

COMMANDS = {"create": 4, "run": 5, "exec": 5, "start": 2, "kill": 4, "delete": 2, "pause": 1, "resume": 1}
NAMES = ("a", "9", "KILL")
"""Containers that run. Two are named as signals are: a runtime that takes one word for the other is seen."""
SIGNALS = ("9", "KILL", "SIGKILL", "TERM", "SIGTERM", "15", "USR1", "10", "hup", "SIGUSR2")


@dataclass(frozen=True)
class Places:
    """The files that command lines name."""

    roots: tuple[Path, ...]
    bundles: tuple[str, ...]
    configs: tuple[str, ...]
    pid_files: tuple[Path, ...]
    logs: tuple[Path, ...]
    processes: tuple[Path, ...]


class Generator:
    """Makes command lines for one runtime; the same for the same seed."""

    def __init__(self, runtime: str, places: Places, seed: int) -> None:
        self._crun = "crun" in runtime
        self._at = places
        self._random = random.Random(seed)
        self._number = 0

    def lines(self) -> Iterator[Spelled]:
        """Yield the words behind the runtime's path."""
        while True:
            self._number += 1
            yield self._line()

    def _line(self) -> Spelled:
        pick = self._random
        command = pick.choices(list(COMMANDS), list(COMMANDS.values()))[0]
        words = self._some(self._globals(), 2)
        words += ["--"] if pick.random() < 0.03 else []
        return [*words, command, *self._after(command)]

    def _after(self, command: str) -> Spelled:
        pick = self._random
        before = self._some(self._options(command), 3)
        names = self._names(command)
        if pick.random() < 0.08:
            before.append("--")
        if command == "exec" or pick.random() < 0.7:
            return before + names
        at = pick.randrange(len(names)) + 1
        between = self._some(self._options(command), 2)
        if pick.random() < 0.15:
            between.insert(pick.randrange(len(between) + 1), "--")
        return before + names[:at] + between + names[at:]

    def _names(self, command: str) -> Spelled:
        pick = self._random
        if command in ("create", "run"):
            new = f"n{self._number}"
            names = [pick.choice([new, new, new, new, "-", "--", f"-{self._number}", "run"])]
        elif command in ("start", "delete"):
            names = [pick.choice(["c", "d"])]
        else:
            names = [pick.choice(NAMES)]
        if command == "kill" and pick.random() < 0.8:
            names.append(pick.choice(SIGNALS))
        if command == "exec":
            names += pick.choice([[], ["--"], ["--"], ["-t"]])
            theirs = ["x", "--", "-t", "--cwd", "/tmp", "", "-h", "=", "rec"]
            names += ["/bin/rec", *pick.sample(theirs, pick.randrange(4))]
        elif pick.random() < 0.04:
            names.append("more")
        return names

    def _some(self, options: list[Spelled], most: int) -> Spelled:
        number = min(self._random.randrange(most + 1), len(options))
        return [word for option in self._random.sample(options, number) for word in option]

    def _globals(self) -> list[Spelled]:
        pick = self._random
        root, log = str(pick.choice(self._at.roots)), str(pick.choice(self._at.logs))
        # To crun before 1.22 --rootless is another --root: the last one counts.
        rooted = self._valued("root", root) if self._crun else []
        return [
            self._valued("root", root),
            self._valued("root", root),
            self._valued("log", log),
            self._valued("log-format", pick.choice(["json", "text"])),
            self._valued("rootless", pick.choice(["auto", "false"])) + rooted,
            self._flag("debug"),
            self._flag("systemd-cgroup", "=false"),
            *([self._valued("cgroup-manager", "cgroupfs")] if self._crun else []),
            self._rare(),
        ]

    def _options(self, command: str) -> list[Spelled]:
        if command in ("create", "run"):
            return [*self._start(command), self._rare()]
        return [*(self._exec() if command == "exec" else self._of_container(command)), self._rare()]

    def _start(self, command: str) -> list[Spelled]:
        pick = self._random
        bundle = [self._valued("bundle", pick.choice(self._at.bundles), "b") for _ in range(3)]
        return [
            *bundle,
            *[self._valued("pid-file", str(pick.choice(self._at.pid_files))) for _ in range(2)],
            self._flag("no-new-keyring"),
            self._flag("no-pivot", "=false"),
            self._valued("preserve-fds", "0"),
            *([self._flag("detach", short="d") for _ in range(2)] if command == "run" else []),
            *([self._flag("no-subreaper")] if command == "run" or self._crun else []),
            *([self._valued("config", pick.choice(self._at.configs), "f")] if self._crun else []),
            *([[f"-d{self._short('b', pick.choice(self._at.bundles))}"]] if command == "run" else []),
        ]

    def _exec(self) -> list[Spelled]:
        pick = self._random
        return [
            self._valued("cwd", pick.choice(["/tmp", "/bin"])),
            *[self._valued("env", f"A={value}", "e") for value in ("1", "--x", "-t=b", "")],
            self._valued("user", pick.choice(["0", "7", "7:8"]), "u"),
            self._valued("process", str(pick.choice(self._at.processes)), "p"),
            self._valued("pid-file", str(pick.choice(self._at.pid_files))),
            self._valued("cap", "CAP_KILL", "c"),
            self._flag("detach", short="d"),
            self._flag("tty", short="t"),
            pick.choice(
                [["--tty=false"], ["--tty=no"], ["-tno"], ["-td"], ["-dt"], ["-tu7"], ["-de", "A=2"]]
            ),
            self._flag("no-new-privs"),
        ]

    def _of_container(self, command: str) -> list[Spelled]:
        flags = {"kill": [("all", "a")], "delete": [("force", "f")]}.get(command, [])
        return [self._flag(name, short=short) for name, short in flags for _ in range(2)]

    def _rare(self) -> Spelled:
        """What few write, and what no runtime of today knows."""
        pick = self._random
        if pick.random() < 0.7:
            return []
        return pick.choice(
            [
                ["--help"], ["-h"], ["--help=false"], ["--usage"], ["-?"], ["-v"], ["--version"], ["-V"],
                ["--future"], ["--future=1"], ["--future", "1"], ["-x"], ["---bundle=b"], ["-=x"],
                ["--program-name", "x"], ["--prog=x"], ["-"],
            ]
        )  # fmt: skip

    def _valued(self, name: str, value: str, short: str = "") -> Spelled:
        pick = self._random
        ways: list[Spelled] = [[f"--{name}", value], [f"--{name}", value], [f"--{name}={value}"]]
        ways += (
            [[f"-{name}", value], [f"-{name}={value}"]]
            if pick.random() < (0.1 if self._crun else 0.6)
            else []
        )
        if short:
            ways += [
                [f"-{short}", value],
                [f"-{short}", value],
                [self._short(short, value)],
                [f"-{short}={value}"],
            ]
        if pick.random() < (0.5 if self._crun else 0.05):
            cut = name[: pick.randrange(1, len(name) + 1)]
            ways = [[f"--{cut}", value], [f"--{cut}={value}"]]
        if pick.random() < 0.02:
            ways = [[f"--{name}"], [f"--{name}="]]
        return pick.choice(ways)

    def _short(self, short: str, value: str) -> str:
        return f"-{short}{value}" if self._crun or self._random.random() < 0.2 else f"-{short}={value}"

    def _flag(self, name: str, value: str = "", *, short: str = "") -> Spelled:
        """`value` is what an engine for Go's runtimes would write behind it."""
        pick = self._random
        ways = [f"--{name}"]
        ways += [f"-{name}", f"--{name}={pick.choice(['true', 'false', 'T', '0'])}"] if not self._crun else []
        ways += [f"-{short}"] * 2 if short else []
        if self._crun and pick.random() < 0.5:
            ways = [f"--{name[: pick.randrange(1, len(name) + 1)]}"]
        if value and not self._crun:
            ways = [f"--{name}{value}", f"-{name}{value}"]
        if pick.random() < 0.03:
            ways = [f"--{name}=maybe"]
        return [pick.choice(ways)]
