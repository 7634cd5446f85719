"""Who has the groups: never the supervisor and a worker at once. The workers are small scripts."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from startgate.agent import supervisor, words
from startgate.agent.handover import SIGNALS, Handover, Past
from startgate.agent.process import WorkerProcess
from startgate.agent.supervisor import Supervisor
from startgate.inherited.progress import Snapshot

pytestmark = pytest.mark.timeout(60)

HANG_LIMIT = 0.8
PATIENCE = HANG_LIMIT * 1.5
ABSENT = "no worker was ready: what waited was let go unseen"

WORKER = """
import os, select, sys, time
word, turn, said = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def ask():
    os.eventfd_write(word, 1)
    select.select([turn], [], [])
    gap = os.read(turn, 4096).decode().strip()
    with open(said, "a") as file:
        file.write(f"{os.getpid()} {gap}\\n")
def ready():
    os.eventfd_write(word, 2)
"""


class Waiting:
    """The supervisor's view of a group in which one event always waits."""

    def __init__(self) -> None:
        self.fd = os.eventfd(1)

    def fileno(self) -> int:
        return self.fd


class FakeGroups:
    """Notes when the supervisor reads or answers, and that no worker that has the turn lives then."""

    said: Path
    let_go: list[float]

    def __init__(self, handover: Handover) -> None:
        self.groups = [Waiting()]
        self.let_go = []

    def release(self) -> None:
        self._touch()

    def drain(self) -> None:
        self._touch()

    def _touch(self) -> None:
        for line in self.said.read_text().splitlines():
            assert not Path(f"/proc/{line.split()[0]}").exists(), "that worker answers, too"
        self.let_go.append(time.monotonic())

    def is_quiet(self) -> bool:
        return True

    def seen(self) -> Snapshot:
        return Snapshot((0, 0, 0), 0, 0)

    def ping(self) -> None: ...

    def forget_reader(self) -> None: ...


def open_fds() -> set[int]:
    return {fd for fd in range(512) if Path(f"/proc/self/fd/{fd}").is_symlink()}


Run = Callable[..., Supervisor]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a supervisor with these workers, one after the other, until the last one ends with 0."""
    said = tmp_path / "said"
    said.touch()
    monkeypatch.setattr(FakeGroups, "said", said, raising=False)
    monkeypatch.setattr(supervisor, "Groups", FakeGroups)
    before = open_fds()
    fds = words.fds() | {"alert": os.eventfd(0, os.EFD_NONBLOCK)}
    handlers = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGTSTP)}

    supervisors: list[Supervisor] = []

    def run(*workers: str, past: Past | None = None) -> Supervisor:
        scripts = iter(workers)

        def start(cls: type[WorkerProcess], handover: Handover) -> WorkerProcess:
            for fd in fds.values():
                os.set_inheritable(fd, True)
            command = [
                sys.executable,
                "-SEc",
                WORKER + next(scripts),
                str(fds["word"]),
                str(fds["turn"]),
                str(said),
            ]
            return cls(os.posix_spawn(sys.executable, command, os.environ))

        monkeypatch.setattr(WorkerProcess, "start", classmethod(start))
        handover = Handover(fds, "table", {"hold_timeout": 2.0}, HANG_LIMIT, "", past=past)
        supervisors.append(Supervisor(handover))
        supervisors[-1].run()
        return supervisors[-1]

    yield run
    for found in supervisors:
        found._epoll.close()  # else it closes its number later, which is another's then
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for fd in open_fds() - before:  # a supervisor keeps them for life
        os.close(fd)


def gaps(tmp_path: Path) -> list[str]:
    """What each worker was told when it got its turn."""
    return [line.partition(" ")[2] for line in (tmp_path / "said").read_text().splitlines()]


def let_go(found: Supervisor) -> list[float]:
    groups = found._groups
    assert isinstance(groups, FakeGroups)
    return groups.let_go


READY = "ask(); ready();"
WELL = READY + "time.sleep(0.7);"  # longer than SETTLED


def test_the_first_worker_that_fails_ends_it(run: Run) -> None:
    assert run("sys.exit(3)")._exit == 3
    assert run("ask(); sys.exit(2)")._exit == 2


def test_one_that_dies_is_replaced_and_nothing_is_let_go(run: Run, tmp_path: Path) -> None:
    found = run(WELL + "os.abort()", READY)
    assert gaps(tmp_path) == ["", ""]
    assert not let_go(found)


def test_a_worker_that_has_its_turn_and_is_not_ready_is_killed_first(run: Run, tmp_path: Path) -> None:
    began = time.monotonic()
    found = run(WELL + "os.abort()", "ask(); time.sleep(60)", READY)
    assert gaps(tmp_path) == ["", "", ABSENT]
    died = began + 0.7
    assert let_go(found)
    assert let_go(found)[0] >= died + PATIENCE
    assert let_go(found)[-1] < died + PATIENCE + 2


def test_while_a_worker_is_slow_to_ask_nobody_waits_and_it_is_told(run: Run, tmp_path: Path) -> None:
    found = run(WELL + "os.abort()", "time.sleep(2);" + READY)
    assert gaps(tmp_path) == ["", ABSENT]
    assert let_go(found)


def test_a_worker_that_never_asks_is_given_up(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before twice the hang limit: a machine that needs a long one is slow to start workers, too."""
    monkeypatch.setattr(supervisor, "START_LIMIT", 0.1)
    began = time.monotonic()
    run(WELL + "os.abort()", "time.sleep(60)", READY)
    assert gaps(tmp_path) == ["", ABSENT]
    assert 0.7 + 2 * HANG_LIMIT <= time.monotonic() - began < 30


def test_one_that_fails_after_its_turn_gives_the_groups_back_at_once(run: Run, tmp_path: Path) -> None:
    failing = "time.sleep({}); ask(); sys.exit(2)"
    found = run(WELL + "os.abort()", failing.format(1.5), failing.format(0), READY)
    assert gaps(tmp_path) == ["", ABSENT, ABSENT, ABSENT]
    assert len(let_go(found)) >= 3


def test_an_upgrade_goes_on_where_it_was(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[Past] = []

    def exec_instead(self: Handover) -> NoReturn:
        assert self.past
        passed.append(self.past)
        raise OSError(2, "not now")

    monkeypatch.setattr(Handover, "become_supervisor", exec_instead)
    upgrade = "os.kill(os.getppid(), 12); time.sleep(0.3);"
    run(WELL + upgrade + "os.abort()", "sys.exit(2)", upgrade + "time.sleep(1);" + upgrade + READY)
    working, starting, absent = passed
    assert working.worker and working.gap == "" and working.failures == 0
    assert working.held_until == pytest.approx(time.monotonic(), abs=30)
    assert starting.failures == 1 and starting.gap == "" and starting.held_until < absent.held_until + 0.01
    assert absent.gap == ABSENT and absent.held_until == starting.held_until < time.monotonic()


def test_a_supervisor_that_goes_on_does_not_end_where_no_worker_starts(run: Run, tmp_path: Path) -> None:
    past = Past(worker=0, held_until=time.monotonic() - 9, gap=ABSENT, born=0.0, failures=0)
    found = run("sys.exit(2)", "time.sleep(0.2);" + READY, past=past)
    assert found._exit == 0
    assert gaps(tmp_path) == [ABSENT]
    assert let_go(found)


def test_a_handover_travels_as_json() -> None:
    past = Past(worker=5, held_until=1.5, gap="é", born=float("inf"), failures=2)
    for given in (None, past):
        handover = Handover({"word": 3}, "table", {"a": None}, 2.0, "/n", 7, given)
        assert Handover.from_json(handover.command("supervisor")[-1]) == handover
