from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.events import Container, Event, Process
from startgate.gates.context import Context
from startgate.gates.executing import Executing
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.listeners import Deny, Subscription
from startgate.records import ExecRecord
from startgate.runtimes.commandline import parse
from tests.unit.fakes import FakeGroup, FakeHost, make_context, make_entry

TID = 42
RECORD = ExecRecord(TID, TID, 1, trusted=True, arguments=[], complete=True)
PROCESS = b'{"args": ["ls", "-l"], "cwd": "/srv", "terminal": true, "user": {"uid": 5, "gid": 6}}'


@pytest.fixture
def context(host: FakeHost, group: FakeGroup, tmp_path: Path) -> Iterator[Context]:
    (tmp_path / "root").mkdir()
    host.process(TID, root=tmp_path / "root")
    context = make_context(group, host.proc)
    yield context
    context.pid_files.close()


@pytest.fixture
def events(context: Context) -> Subscription:
    return context.listeners.subscribe(10)


def execute(context: Context, group: FakeGroup, line: str, events: Subscription) -> Event:
    call = parse(line.encode().split())
    Executing(context).at_command(call, "/usr/sbin/runc", RECORD, group.hold())
    event = events.get(timeout=0)
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("line", "process"),
    [
        ("runc exec c1 ls -l", Process(argv=("ls", "-l"))),
        ("runc exec -t -u 5:6 --cwd /srv c1 sh", Process(argv=("sh",), user="5:6", cwd="/srv", tty=True)),
        ("runc exec --tty --user 5 c1", Process(user="5", tty=True)),
        ("runc exec --process /nope c1", None),
    ],
)
def test_what_the_command_line_says(
    context: Context, group: FakeGroup, events: Subscription, line: str, process: Process | None
) -> None:
    event = execute(context, group, line, events)
    assert (event.type, event.gate, event.process) == ("exec", "exec", process)
    assert group.answers == [FAN_ALLOW]


def test_what_the_process_file_says(
    context: Context, group: FakeGroup, events: Subscription, tmp_path: Path
) -> None:
    (tmp_path / "root/process.json").write_bytes(PROCESS)
    event = execute(context, group, "runc exec --process /process.json c1", events)
    assert event.process == Process(argv=("ls", "-l"), user="5:6", cwd="/srv", tty=True)


def test_the_container_is_the_one_that_is_known(
    context: Context, group: FakeGroup, events: Subscription
) -> None:
    entry = make_entry("c1", pid=4242)
    context.lifecycle.begin(entry)
    assert execute(context, group, "runc exec c1 ls", events).container == entry.container


def test_a_container_that_is_not_known(context: Context, group: FakeGroup, events: Subscription) -> None:
    event = execute(context, group, "runc exec c1 ls", events)
    assert event.container == Container(id="c1", runtime_path="/usr/sbin/runc")


def test_an_exec_may_be_denied(context: Context, group: FakeGroup, events: Subscription) -> None:
    context.listeners.on("exec", lambda event: Deny("no shells"))
    assert execute(context, group, "runc exec c1 sh", events).type == "denied"
    assert group.answers == [FAN_DENY]
