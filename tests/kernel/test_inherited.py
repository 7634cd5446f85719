"""A worker takes over what a dead one had read and not answered."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from startgate.inherited.progress import Progress
from startgate.inherited.resources import COMMANDS, Resources
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM, Event
from tests.kernel.support import PATIENCE

MANY = 600  # more than the BPF program looks through


TAKE_OVER = """
import json, sys
from startgate.inherited.resources import COMMANDS, Resources
from startgate.kernel.fanotify import FAN_ALLOW

resources = Resources.inherit("table", json.loads(sys.argv[1]))
for event in resources.pending[COMMANDS]:
    resources.commands.answer(event.fd, FAN_ALLOW)
print(json.dumps([len(resources.pending[COMMANDS]), resources.unseen]))
"""


def _take_over(resources: Resources) -> tuple[int, int]:
    """Let the next process answer; return how many tasks it knew, and how many it did not."""
    fds = resources.fds()
    command = [sys.executable, "-c", TAKE_OVER, json.dumps(fds)]
    told = subprocess.run(command, pass_fds=fds.values(), check=True, stdout=subprocess.PIPE).stdout
    os.close(fds["outbox"])
    known, unseen = json.loads(told)
    return known, unseen


def _read(resources: Resources, count: int) -> list[Event]:
    pulse, events = resources.progress.reader(COMMANDS), list[Event]()
    while len(events) < count:
        assert select.select([resources.commands], [], [], PATIENCE)[0], f"{len(events)} of {count} are held"
        if event := resources.commands.read():
            pulse.hold(event.fd)
            events.append(event)
    return events


def test_more_are_held_than_can_be_told(tmp_path: Path) -> None:
    """What can't be looked at again is let go: nobody else would ever answer."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with closing(Resources.open("table", Progress.shared())) as resources:
        resources.commands.mark(FAN_OPEN_EXEC_PERM, str(program))
        command = ["sh", "-c", f"exec {program}"]
        shells = [os.posix_spawn("/bin/sh", command, os.environ) for _ in range(MANY)]
        for event in _read(resources, MANY):
            os.close(event.fd)
        known, unseen = _take_over(resources)
    assert 0 < known < MANY
    assert known + unseen == MANY
    for shell in shells:
        assert os.waitpid(shell, 0)[1] == 0


def test_who_inherits_counts_no_answers_that_nobody_was_owed() -> None:
    """Else as many holds as that are overlooked: by a supervisor that sees none."""
    with closing(Resources.open("table", Progress.shared())) as resources:
        fds = resources.fds()
        with closing(Resources.inherit("table", {name: os.dup(fd) for name, fd in fds.items()})) as heir:
            assert resources.progress.snapshot().answers == 0
            heir.progress.reader(COMMANDS).hold(9)
            assert resources.progress.snapshot().held == 1
        for outbox in (heir.outbox._fd if heir.outbox else -1, fds["outbox"]):  # a worker keeps it for life
            os.close(outbox)
