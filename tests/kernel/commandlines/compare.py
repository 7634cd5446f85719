"""Is what `parse` says what the runtime did?"""

from __future__ import annotations

import os
from pathlib import Path

from startgate.events import Container
from startgate.gates.executing import process_of
from startgate.runtimes import state
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.signals import signal_number
from tests.kernel.commandlines.world import ENDS, RECORDED, Key, Seen, World
from tests.unit.fakes import FakeGroup, make_context

_CONTEXT = make_context(FakeGroup())

_CHANGES = {
    Command.START: "started",
    Command.DELETE: "gone",
    Command.PAUSE: "frozen",
    Command.RESUME: "thawed",
    Command.KILL: "signals",
    Command.EXEC: "executed",
}


def differences(call: Invocation, seen: Seen, world: World) -> list[str]:
    """Return what `parse` understood in another way. A line that was refused concerns no container."""
    if not seen.did_something:
        return []
    if call.doubt:
        return [f"in doubt by {call.doubt}"]
    if call.command is Command.OTHER:
        return ["not a command for a container"]
    root = call.root or state.flavour(os.path.basename(world.runtime.prefix[-1])).root
    if call.command.starts:
        pairs = _of_start(call, root, seen, world)
    else:
        pairs = _of_container(call, (root, call.id), seen, world)
    if not call.log or Path(call.log) in world.places.logs:
        pairs["log"] = ([call.log] if call.log else [], list(seen.logs))
        formats = {"json" if text.startswith("{") else "text" for text in seen.logs.values() if text}
        pairs["log format"] = ({call.log_format or "text"} if formats else set(), formats)
    return [f"{what}: {said!r}, and it was {real!r}" for what, (said, real) in pairs.items() if said != real]


def _of_start(call: Invocation, root: str, seen: Seen, world: World) -> dict[str, tuple[object, object]]:
    if len(seen.made) != 1:
        return {"containers": (1, len(seen.made))}
    made = seen.made[0]
    pairs: dict[str, tuple[object, object]] = {
        "id": (call.id, made.id),
        "root": (root, made.root),
        "bundle": (os.path.normpath(world.cwd / (call.bundle or "")), made.bundle),
        "config": (call.config or "config.json", made.config),
        "pid file": (_pid_files(call, world), seen.pid_files),
    }
    if call.command is Command.RUN and seen.status in (0, ENDS):
        pairs["exit code"] = (0 if call.detach else ENDS, seen.status)
    return pairs


def _of_container(call: Invocation, key: Key, seen: Seen, world: World) -> dict[str, tuple[object, object]]:
    what = _CHANGES.get(call.command)
    changed = {key for name in _CHANGES.values() for key in getattr(seen, name)}
    pairs: dict[str, tuple[object, object]] = {
        "containers": ({key}, changed),
        "done": (what, next((name for name in _CHANGES.values() if getattr(seen, name)), None)),
    }
    if key not in changed:
        return pairs
    if call.command is Command.KILL:
        wanted = signal_number(call.signal)
        pairs["signal"] = ([wanted], [signal_number(word) for word in seen.signals[key]])
    if call.command is Command.EXEC:
        pairs |= _of_exec(call, seen, seen.executed[key], world)
    return pairs


def _pid_files(call: Invocation, world: World) -> list[str]:
    """Those of them that are looked for."""
    return [call.pid_file] if call.pid_file and Path(call.pid_file) in world.places.pid_files else []


def _of_exec(call: Invocation, seen: Seen, told: list[str], world: World) -> dict[str, tuple[object, object]]:
    user, cwd, value, terminal, *arguments = told
    pairs: dict[str, tuple[object, object]] = {
        "pid file": (_pid_files(call, world), seen.pid_files),
        "exit code": (0 if call.detach else RECORDED, seen.status),
    }
    if call.process:
        return pairs | {"process": ([os.path.basename(call.process)], arguments)}
    process = process_of(call, Container(call.id, cwd="/", user="0:0"), _CONTEXT)
    assert process
    env = [text for name, text in call.options if name == "--env"]
    given = next((text[2:] for text in reversed(env) if text.startswith("A=")), "")
    return (
        pairs
        | {
            "terminal": (
                process.tty,
                terminal == "its own",
            ),  # not the caller's
            "arguments": (list(call.arguments[1:]), arguments),
            "cwd": (process.cwd, cwd),
            "user": ((process.user or "0").split(":")[0], user),
            "environment": (given, value),
        }
    )
