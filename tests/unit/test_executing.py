from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.events import Container, Event, Process
from startgate.gates.context import Context
from startgate.gates.created import Created
from startgate.gates.execs import Execs
from startgate.gates.executing import Executing
from startgate.gates.keys import look_up
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY
from startgate.kernel.process import ProcessId
from startgate.listeners import Deny, Subscription
from startgate.records import ExecRecord
from startgate.runtimes.commandline import parse
from tests.unit.fakes import FakeGroup, FakeHost, make_context, make_entry

TID = 42
RECORD = ExecRecord(TID, TID, 1, trusted=True, arguments=[], complete=True)
AT_ROOT = ExecRecord(TID + 1, TID + 1, 1, trusted=True, arguments=[], complete=True)
PROCESS = b'{"args": ["ls", "-l"], "cwd": "/srv", "terminal": true, "user": {"uid": 5, "gid": 6}}'
IN_FILE = Process(argv=("ls", "-l"), user="5:6", cwd="/srv", tty=True, no_new_privileges=False)


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


def execute(
    context: Context, group: FakeGroup, line: str, events: Subscription, record: ExecRecord = RECORD
) -> Event:
    call = parse(line.encode().split())
    Executing(context, Created(context), Execs(context, None)).at_command(
        call, "/usr/sbin/runc", record, group.hold()
    )
    event = events.get(timeout=0)
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("line", "process"),
    [
        ("runc exec c1 ls -l", Process(argv=("ls", "-l"))),
        ("runc exec -t -u 5:6 --cwd /srv c1 sh", Process(argv=("sh",), user="5:6", cwd="/srv", tty=True)),
        ("runc exec --tty --user 5 c1", Process(user="5", tty=True)),
        ("runc exec --tty=false c1 sh", Process(argv=("sh",))),
        (
            "runc exec --cap CAP_BPF -c kill --apparmor p c1 sh",
            Process(
                argv=("sh",),
                capabilities=("CAP_BPF", "CAP_KILL"),
                bounding_capabilities=("CAP_BPF", "CAP_KILL"),
                apparmor="p",
            ),
        ),
        ("runc exec --no-new-privs c1 sh", Process(argv=("sh",), no_new_privileges=True)),
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
    assert event.process == Process(
        no_new_privileges=False, argv=("ls", "-l"), user="5:6", cwd="/srv", tty=True
    )


@pytest.mark.parametrize(
    ("line", "env"),
    [
        ("runc exec -e SPO_EXEC_REQUEST_UID=1 --env=PASSWORD=x c1 sh", {"SPO_EXEC_REQUEST_UID": "1"}),
        ("runc exec -e SPO_EXEC_REQUEST_UID=1 -e SPO_EXEC_REQUEST_UID=2 c1", {"SPO_EXEC_REQUEST_UID": "2"}),
        ("runc exec -e KUBERNETES_EXEC_AUDIT_ID= c1 sh", {"KUBERNETES_EXEC_AUDIT_ID": ""}),
        ("runc exec -e KUBERNETES_EXEC_AUDIT_ID -e PASSWORD=x c1 sh", {}),
        (
            "runc exec -e SPO_EXEC_REQUEST_UID=1 c1 /bin/env A=b SPO_EXEC_REQUEST_UID=2 sh",
            {"SPO_EXEC_REQUEST_UID": "2"},
        ),
        ("runc exec c1 env sh SPO_EXEC_REQUEST_UID=2", {}),
        ("runc exec c1 sh SPO_EXEC_REQUEST_UID=2", {}),
        ("runc exec --process /process.json -e SPO_EXEC_REQUEST_UID=9 c1", {"SPO_EXEC_REQUEST_UID": "5"}),
    ],
)
def test_the_chosen_variables_of_its_environment(
    context: Context,
    group: FakeGroup,
    events: Subscription,
    tmp_path: Path,
    line: str,
    env: dict[str, str],
) -> None:
    """Nothing but these: the others are secrets. A process file takes the place of the options."""
    file = b'{"args": ["sh"], "env": ["PASSWORD=x", "SPO_EXEC_REQUEST_UID=5"]}'
    (tmp_path / "root/process.json").write_bytes(file)
    event = execute(context, group, line, events)
    assert event.process
    assert event.process.env == env


def test_a_process_file_that_is_a_pipe(
    host: FakeHost, context: Context, group: FakeGroup, events: Subscription
) -> None:
    """What is in it stays there for the runtime; its writer may be slow."""
    host.process(TID + 1, root=Path("/"))
    out, into = os.pipe()
    try:
        os.write(into, PROCESS[:20])
        later = threading.Timer(0.05, lambda: os.write(into, PROCESS[20:]))
        later.start()
        line = f"runc exec --process /proc/{os.getpid()}/fd/{out} c1"
        event = execute(context, group, line, events, AT_ROOT)
        later.join()
        assert event.process == Process(
            no_new_privileges=False, argv=("ls", "-l"), user="5:6", cwd="/srv", tty=True
        )
        assert os.read(out, 1000) == PROCESS
    finally:
        os.close(out)
        os.close(into)


@pytest.mark.parametrize(
    ("words", "found"),
    [("value c1 sh", "c1"), ("c1 sh", "c1"), ("--other x --cwd /c c1 sh", "c1"), ("value c3 sh", "")],
)
def test_an_option_that_nobody_knows(
    context: Context, group: FakeGroup, events: Subscription, words: str, found: str
) -> None:
    """Never a wrong container, nor a wrong process: they are not known, and nothing can be decided."""
    context.lifecycle.begin(make_entry("c1", pid=4242))
    event = execute(context, group, f"runc exec --future {words}", events, AT_ROOT)
    assert event.container
    assert (event.container.id, event.process) == (found, None)
    assert event.container.unknown == (() if found else ("id",))


def test_an_option_that_nobody_knows_and_two_containers(
    context: Context, group: FakeGroup, events: Subscription
) -> None:
    context.lifecycle.begin(make_entry("c1", pid=4242))
    context.lifecycle.begin(make_entry("c2", runtime=ProcessId(101, 1000), pid=4243))
    event = execute(context, group, "runc exec --future c1 c2 sh", events)
    assert event.container
    assert (event.container.id, event.process) == ("", None)


def test_the_container_is_the_one_that_is_known(
    context: Context, group: FakeGroup, events: Subscription
) -> None:
    entry = make_entry("c1", pid=4242)
    entry.key = look_up(context.proc, entry.invocation, "runc", RECORD).key
    context.lifecycle.begin(entry)
    assert execute(context, group, "runc exec c1 ls", events).container == entry.container


def test_a_container_that_is_not_known(context: Context, group: FakeGroup, events: Subscription) -> None:
    event = execute(context, group, "runc exec c1 ls", events)
    assert event.container == Container(id="c1", runtime_path="/usr/sbin/runc")


def test_an_exec_may_be_denied(context: Context, group: FakeGroup, events: Subscription) -> None:
    context.listeners.on("exec", lambda event: Deny("no shells"))
    assert execute(context, group, "runc exec c1 sh", events).type == "denied"
    assert group.answers == [FAN_DENY]


def test_what_is_joined_has_been_created(
    context: Context, group: FakeGroup, host: FakeHost, events: Subscription
) -> None:
    """Though no gate saw its program start: an `exec` proves that it runs."""
    entry = make_entry()
    context.lifecycle.begin(entry)
    entry.told = True
    init = host.process(200, start_time=1001, executed=True)
    (init / "cgroup").write_text("0::/\n")
    host.proc._hierarchies = {}
    directory = host.root / "run/runc/c1"
    directory.mkdir(parents=True)
    (directory / "state.json").write_text('{"init_process_pid": 200, "init_process_start": 1001}')
    host.process(AT_ROOT.tid, root=host.root)
    first = execute(context, group, "runc exec c1 ls", events, AT_ROOT)
    second = events.get(timeout=0)
    assert (first.type, first.gate) == ("created", "none")
    assert second and second.type == "exec" and second.container
    assert second.container.pid == 200
