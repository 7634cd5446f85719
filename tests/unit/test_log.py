from __future__ import annotations

import atexit
import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from startgate.cli import log
from startgate.cli.log import QueuedHandler

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
