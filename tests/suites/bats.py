"""One file of bats tests: its results, and the runtime's commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from startgate import Event
from startgate.runtimes import commandline
from startgate.runtimes.commandline import Command

_LINE = re.compile(r"^(ok|not ok) \d+ (.*?)( # skip.*)?$", re.MULTILINE)
_SEPARATOR = "\x1f"
_RECORDER = """#!/bin/sh
IFS=$(printf '\\037'); printf '%s\\n' "$*" >>{log}; exec {runtime} "$@"
"""


@dataclass
class Results:
    """What became of each test, and of which containers a start or an exec was asked for."""

    tests: dict[str, str]
    starts: Counter[str]
    execs: Counter[str]

    def __str__(self) -> str:
        found = Counter(self.tests.values())
        return ", ".join(f"{found[kind]} {kind}" for kind in ("ok", "not ok", "skipped") if found[kind])


def recorder(directory: Path, runtime: Path) -> Path:
    """Make a program that notes each command, and becomes the runtime: an independent record."""
    directory.mkdir(exist_ok=True)
    path = directory / "runc"
    path.write_text(_RECORDER.format(log=directory / "commands", runtime=runtime))
    path.chmod(0o755)
    return path


def run(file: Path, record: Path, output: Path, limit: float) -> Results:
    """Run the tests of a file with the recorder in the runtime's place."""
    log = record.parent / "commands"
    log.write_text("")
    words = [
        "timeout",
        "--foreground",
        "--kill-after=10",
        str(limit),
        "bats",
        "--formatter",
        "tap",
        str(file),
    ]
    with (
        output.open("wb") as to,
        subprocess.Popen(
            # On a terminal: many tests run config.json as `runc spec` writes it, which asks for one.
            ["script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null"],
            env=os.environ | {"RUNC": str(record)},
            stdin=subprocess.PIPE,  # nothing ever comes, and no end
            stdout=to,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        process.wait()
    tests = results_of(output.read_text(errors="replace"))
    return Results(tests, *asked_for(log.read_text(errors="surrogateescape")))


def results_of(said: str) -> dict[str, str]:
    """Read what bats says (TAP, from a terminal)."""
    found = _LINE.findall(said.replace("\r", ""))
    return {name: "skipped" if skip else kind for kind, name, skip in found}


def asked_for(commands: str) -> tuple[Counter[str], Counter[str]]:
    """Read the recorder's log: how often each container was to be started, and joined by an exec."""
    lines = [line.split(_SEPARATOR) for line in commands.split("\n") if line]
    calls = [commandline.parse([os.fsencode(word) for word in ("runc", *line)]) for line in lines]
    starts = Counter(call.id for call in calls if call.command.starts)
    return starts, Counter(call.id for call in calls if call.command is Command.EXEC)


def told(events: Iterable[Event], event_type: str) -> Counter[str]:
    """Return how often events of a type were told, by container."""
    return Counter(event.container.id for event in events if event.type == event_type and event.container)
