from __future__ import annotations

import atexit
import io
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate.cli import log
from startgate.cli.log import Formatter, QueuedHandler, RateLimit

PATIENCE = 10.0


class Terminal(io.StringIO):
    """A terminal that is stopped, as by Ctrl-S, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.going = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.going.wait(PATIENCE)
        return super().write(text)


class BrokenPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def stopped_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: pytest sets sys.stderr anew when a test begins."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.fixture
def handler() -> Iterator[QueuedHandler]:
    handler = QueuedHandler()
    yield handler
    handler._drain()
    atexit.unregister(handler._drain)
    handler.close()


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("startgate", logging.WARNING, __file__, 1, text, None, None)


def written(handler: QueuedHandler, terminal: Terminal) -> list[str]:
    terminal.going.set()
    handler._lines.put(None)
    handler._thread.join(PATIENCE)
    return terminal.getvalue().splitlines()


def test_its_thread_takes_no_signal(handler: QueuedHandler) -> None:
    """SIGTERM, while the main thread has it blocked, must wait for the main thread."""
    status = Path(f"/proc/self/task/{handler._thread.native_id}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert blocked >> (signal.SIGTERM - 1) & 1
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_lines_are_written_in_their_order(handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stopped_terminal(monkeypatch)
    for text in "abc":
        handler.emit(record(text))
    assert written(handler, terminal) == ["a", "b", "c"]


def test_a_terminal_that_is_stopped_stops_nobody(
    handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = stopped_terminal(monkeypatch)
    monkeypatch.setattr(log, "_BACKLOG", 2)
    handler.emit(record("0"))
    assert terminal.reached.wait(PATIENCE)
    for number in range(1, 6):
        handler.emit(record(str(number)))
    assert written(handler, terminal) == ["0", "1", "2"]


def test_lines_that_were_dropped_are_counted(handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stopped_terminal(monkeypatch)
    handler.emit(record("first"))
    assert terminal.reached.wait(PATIENCE)
    monkeypatch.setattr(log, "_BACKLOG", 0)
    for _ in range(3):
        handler.emit(record("dropped"))
    monkeypatch.setattr(log, "_BACKLOG", 1000)
    handler.emit(record("last"))
    assert written(handler, terminal) == ["first", "startgate: 3 log lines were dropped", "last"]


def test_a_reader_that_has_left(handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", BrokenPipe())
    handler.emit(record("nobody reads this"))
    handler._thread.join(PATIENCE)
    assert not handler._thread.is_alive()
    handler.emit(record("nor this"))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_of_one_template_is_counted_once_its_time_is_over() -> None:
    clock = Clock()
    limit = RateLimit(burst=3, period=10, clock=clock)
    assert [limit.admits("container %s: %s") for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.admits("another")
    assert (limit.due(), limit.wait()) == ([], 10.0)
    clock.now += 11
    assert not limit.admits("container %s: %s")  # not told yet: it goes on to count
    assert limit.due() == ["startgate: 3 more lines like 'container %s: %s' were left out"]
    assert (limit.due(), limit.wait()) == ([], None)
    assert limit.admits("container %s: %s")


def test_a_slow_stream_is_never_limited() -> None:
    clock = Clock()
    limit = RateLimit(burst=1, period=10, clock=clock)
    for _ in range(100):
        assert limit.admits("x")
        clock.now += 10
    assert limit.wait() is None


def test_templates_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(clock=clock)
    for number in range(5000):
        assert limit.admits(str(number))
        clock.now += 1
    assert len(limit._windows) <= 1000


def test_the_count_is_written_though_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stopped_terminal(monkeypatch)
    terminal.going.set()
    handler = QueuedHandler(RateLimit(burst=1, period=0.05))
    try:
        for _ in range(100):
            handler.emit(record("a bad bundle"))
        until = time.monotonic() + PATIENCE
        while terminal.getvalue().count("\n") < 2 and time.monotonic() < until:
            time.sleep(0.01)
        first, second = terminal.getvalue().splitlines()[:2]
        assert first == "a bad bundle"
        assert second.endswith("more lines like 'a bad bundle' were left out")
    finally:
        handler._drain()
        atexit.unregister(handler._drain)
        handler.close()


def test_lines_left_out_take_no_memory(handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stopped_terminal(monkeypatch)
    for _ in range(500):
        handler.emit(record("same"))
    assert handler._lines.qsize() <= 21
    assert written(handler, terminal)[:20] == ["same"] * 20


def test_debug_lines_are_asked_for_and_not_limited(
    handler: QueuedHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = stopped_terminal(monkeypatch)
    lines = [logging.LogRecord("s", logging.DEBUG, __file__, 1, "same", None, None) for _ in range(100)]
    for line in lines:
        handler.emit(line)
    assert len(written(handler, terminal)) == 100


def test_foreign_text_forges_no_line() -> None:
    formatter = Formatter("%(levelname)s: %(message)s")
    assert formatter.format(record("id \x1b[2J\nstartgate: ok")) == "WARNING: id ?[2J?startgate: ok"
    try:
        raise ValueError("a\x1bb")
    except ValueError:
        failed = logging.LogRecord("s", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    text = formatter.format(failed)
    assert "\x1b" not in text
    assert text.startswith("ERROR: failed\nTraceback")
