"""336 real exec events of engines (tests/data), against a rule that is far simpler than the parser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from startgate.runtimes.commandline import Command, parse

ENTRIES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data/runtime-invocations.json").read_text()
)
RUNTIMES = [entry for entry in ENTRIES if entry["binary"] in ("runc", "crun")]
COMMANDS = "create run restore start exec kill init state delete".split()
ID = re.compile(r"[0-9a-z-]+")


def value_of(argv: list[str], *names: str) -> str | None:
    found = re.search(rf"\0(?:{'|'.join(names)})[=\0]([^\0]+)", "\0".join(argv))
    return found[1] if found else None


def name_of(entry: dict[str, Any]) -> str:
    return f"{entry['case']}:{entry['binary']}:{' '.join(entry['argv'][-3:])[-40:]}"


def test_the_corpus_is_whole() -> None:
    assert len(ENTRIES) == 336
    assert len(RUNTIMES) == 211


@pytest.mark.parametrize("entry", RUNTIMES, ids=name_of)
def test_a_real_invocation(entry: dict[str, Any]) -> None:
    argv = entry["argv"]
    command = next((word for word in argv[1:] if word in COMMANDS), "")
    called = parse([os.fsencode(word) for word in argv])
    if command not in [c.value for c in Command]:
        assert command or argv[1:] == ["--version"]
        assert called.command is Command.OTHER
        return
    rest = argv[argv.index(command) + 1 :]
    assert called.command.value == command
    assert called.root == value_of(argv, "--root")
    assert called.log == value_of(argv, "--log")
    assert called.bundle == value_of(argv, "--bundle", "-b")
    assert called.pid_file == value_of(argv, "--pid-file")
    assert called.detach == bool({"--detach", "-d"} & set(rest))
    if command == "kill":
        assert [called.id, called.signal] == [word for word in rest if word != "--all"]
    elif command == "exec":
        assert called.process == value_of(argv, "--process")
        # Values of options hold a slash or an equals sign, all of them.
        identity, *arguments = [word for word in rest if ID.fullmatch(word) and word[0] != "-"]
        assert (called.id, called.arguments) == (identity, tuple(arguments))
    else:
        assert called.id == rest[-1]


@pytest.mark.parametrize("entry", RUNTIMES, ids=name_of)
def test_its_container_has_a_plausible_name(entry: dict[str, Any]) -> None:
    called = parse([os.fsencode(word) for word in entry["argv"]])
    assert called.command is Command.OTHER or ID.fullmatch(called.id)


def test_the_corpus_shows_every_command_but_few() -> None:
    seen = {parse([os.fsencode(word) for word in entry["argv"]]).command for entry in RUNTIMES}
    assert seen == set(Command) - {Command.RESTORE, Command.PAUSE, Command.RESUME}


def test_nothing_else_is_confused_by_the_binaries_name() -> None:
    """Only runtimes and conmon are marked; conmon is told by its name (test_command_gate)."""
    others = [entry for entry in ENTRIES if entry not in RUNTIMES]
    assert {entry["binary"] for entry in others} == {"conmon", "containerd-shim-runc-v2", "podman", "buildah"}
    assert not any(os.path.basename(entry["event_path"]) in ("runc", "crun") for entry in others)
