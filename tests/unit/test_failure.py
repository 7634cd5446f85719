"""Why a start came to nothing: the sentence that an operator reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from startgate.gates.failure import describe, find_log, find_users_log, path_of_log
from startgate.gates.view import View
from startgate.kernel.local import LocalFiles
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry
from startgate.runtimes import state
from startgate.runtimes.commandline import Command
from startgate.runtimes.log import RuntimeLog
from tests.unit.fakes import FakeHost, make_entry

RUNTIME, SHIM = 100, 50
FAILED = 1 << 8


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (None, None),
        ("", None),
        ("/b/log.json", "/b/log.json"),
        ("file:/b/log.json", "/b/log.json"),
        ("journald:startgate", None),
        ("syslog:startgate", None),
    ],
)
def test_which_logs_are_files(given: str | None, path: str | None) -> None:
    assert path_of_log(given) == path


# Where the runtime will write


class Runtime:
    """A runtime that is held. Its working directory is not the bundle."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.root = host.root
        for name in ("b", "logs"):
            (self.root / name).mkdir()
        host.process(RUNTIME, start_time=1000, cwd=self.root / "logs")
        host.process(SHIM, start_time=500)

    def find(self, log: str | None, *, crun: bool = False, parent: int = SHIM) -> RuntimeLog | None:
        entry = make_entry()
        entry.invocation = replace(entry.invocation, log=log)
        entry.flavour = state.CRUN if crun else state.RUNC
        with View(self.host.proc, RUNTIME) as view:
            return find_log(self.host.proc, entry, view, "/b", parent)

    def inode(self, path: str) -> tuple[int, int]:
        status = (self.root / path).stat()
        return status.st_dev, status.st_ino


@pytest.fixture
def runtime(host: FakeHost) -> Runtime:
    return Runtime(host)


def test_a_log_that_does_not_exist_yet(runtime: Runtime) -> None:
    expected = RuntimeLog("/b/log.json", runtime.inode("b"), 0, ProcessId(SHIM, 500))
    assert runtime.find("/b/log.json") == expected


@pytest.mark.parametrize(("crun", "directory"), [(False, "logs"), (True, "b")])
def test_a_relative_log(runtime: Runtime, crun: bool, directory: str) -> None:
    """crun has changed to the bundle by the time it opens it."""
    found = runtime.find("log.json", crun=crun)
    assert found and found.directory == runtime.inode(directory)


def test_what_the_log_holds_already_is_not_of_this_start(runtime: Runtime) -> None:
    (runtime.root / "b/log.json").write_bytes(b"0123456789")
    found = runtime.find("/b/log.json")
    assert found and found.size == 10


def test_a_log_that_is_a_link(runtime: Runtime) -> None:
    (runtime.root / "logs/real.json").touch()
    (runtime.root / "b/log.json").symlink_to("../logs/real.json")
    found = runtime.find("/b/log.json")
    assert found and (os.path.basename(found.path), found.directory) == ("real.json", runtime.inode("logs"))


def test_a_log_below_a_link(runtime: Runtime) -> None:
    (runtime.root / "link").symlink_to("b")
    found = runtime.find("/link/log.json")
    assert found and found.path.endswith("/b/log.json")


@pytest.mark.parametrize("log", [None, "journald:x", "/nowhere/log.json"])
def test_no_log_to_be_read(runtime: Runtime, log: str | None) -> None:
    assert runtime.find(log) is None


def test_the_runtimes_parent_may_be_gone(runtime: Runtime) -> None:
    found = runtime.find("/b/log.json", parent=999)
    assert found and found.caller is None


def test_the_log_of_a_user(host: FakeHost) -> None:
    (host.root / "home").mkdir()
    with LocalFiles(str(host.root), os.getuid()) as files:
        status = (host.root / "home").stat()
        directory = status.st_dev, status.st_ino
        assert find_users_log(files, "/home/log") == RuntimeLog("/home/log", directory, 0)
        (host.root / "home/log").write_bytes(b"old")
        assert find_users_log(files, "/home/log") == RuntimeLog("/home/log", directory, 3)
        assert find_users_log(files, "/nowhere/log") is None
        assert find_users_log(files, None) is None


# What is said


@pytest.mark.parametrize(
    ("command", "gated", "status", "sentence"),
    [
        (Command.CREATE, False, FAILED, "the start failed: runc ended with exit code 1"),
        (Command.RUN, True, FAILED, "the start failed: runc ended with exit code 1"),
        # its first exec was not waited for: the program may have run, and this may be its code
        (Command.RUN, False, FAILED, "no container was seen: runc ended with exit code 1"),
        (Command.CREATE, True, 0, "no container was seen: runc ended with exit code 0"),
        (Command.CREATE, False, None, "the start failed: runc ended"),
        (Command.CREATE, False, 9, "the start failed: runc was ended by signal 9 (SIGKILL)"),
        (Command.CREATE, False, 44, "the start failed: runc was ended by signal 44"),
    ],
)
def test_how_it_ended(
    host: FakeHost, command: Command, gated: bool, status: int | None, sentence: str
) -> None:
    entry = make_entry(command=command)
    entry.gated = gated
    assert describe(host.proc, entry, status) == sentence


def test_a_runtime_without_a_name(host: FakeHost) -> None:
    entry = make_entry()
    entry.container = replace(entry.container, runtime=None)
    assert describe(host.proc, entry, FAILED) == "the start failed: the runtime ended with exit code 1"


@pytest.fixture
def logged(host: FakeHost) -> Entry:
    """A `run` whose log has an old error and a new one. It is known by the host's path."""
    (host.root / "b").mkdir()
    (host.root / "b/log").write_bytes(b"an old error\nno such program\n")
    entry = make_entry(command=Command.RUN)
    entry.key = entry.key._replace(uid=os.getuid())
    entry.log = RuntimeLog("/b/log", _inode(host.root / "b"), len(b"an old error\n"))
    return entry


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_the_last_error_is_a_part_of_it(host: FakeHost, logged: Entry) -> None:
    """And proves that it was the runtime that failed."""
    said = describe(host.proc, logged, FAILED)
    assert said == "the start failed: runc ended with exit code 1: no such program"


def test_errors_of_before_are_not_this_starts(host: FakeHost, logged: Entry) -> None:
    assert logged.log
    logged.log = replace(logged.log, size=len(b"an old error\nno such program\n"))
    assert describe(host.proc, logged, FAILED) == "no container was seen: runc ended with exit code 1"


def test_a_runtime_that_did_well_has_no_last_error(host: FakeHost, logged: Entry) -> None:
    assert describe(host.proc, logged, 0) == "no container was seen: runc ended with exit code 0"


@pytest.mark.parametrize(("path", "certain"), [("/b/log", False), ("/b/log2", True), (None, True)])
def test_a_log_that_others_write_as_well(
    host: FakeHost, logged: Entry, path: str | None, certain: bool
) -> None:
    """Nobody knows whose line is whose."""
    other = make_entry("other")
    other.log = RuntimeLog(path, (1, 1), 0) if path else None
    said = describe(host.proc, logged, FAILED, [other])
    failed = "the start failed: runc ended with exit code 1: no such program"
    assert said == (failed if certain else "no container was seen: runc ended with exit code 1")


@pytest.mark.parametrize("case", ["another directory", "gone"])
def test_a_log_that_is_not_there_any_more(host: FakeHost, logged: Entry, case: str) -> None:
    (host.root / "b").rename(host.root / "moved")
    if case == "another directory":
        (host.root / "b").mkdir()
        (host.root / "b/log").write_bytes(b"an old error\nsomebody else's\n")
    assert describe(host.proc, logged, FAILED) == "no container was seen: runc ended with exit code 1"


@pytest.mark.parametrize("alive", [True, False])
def test_a_log_that_only_the_caller_sees(host: FakeHost, logged: Entry, tmp_path: Path, alive: bool) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (host.root / "b").rename(theirs / "b")
    process = host.process(SHIM, start_time=500, root=theirs)
    (process / "mountinfo").write_text(Path("/proc/self/mountinfo").read_text())
    assert logged.log
    logged.log = replace(logged.log, caller=ProcessId(SHIM, 500 if alive else 400))
    assert describe(host.proc, logged, FAILED).endswith(": no such program") == alive
