"""What `watch` shows of the events that come."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from startgate.cli.watch import Watch
from startgate.events import Event, Exit, Process
from startgate.listeners import Listeners
from startgate.testing import make_event
from startgate.watcher import Watcher


class Prepared:
    """A watcher that has seen some events, and ends."""

    binaries: Sequence[str] = ()
    exec_records = "none"

    def __init__(self, *events: Event) -> None:
        listeners = Listeners()
        self.events = listeners.subscribe(100)
        for event in events:
            listeners.publish(event)
        self.events.close()

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    def check(self) -> None: ...


def shown(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *events: Event, **options: Any
) -> list[str]:
    monkeypatch.setattr("gc.freeze", lambda: None)
    output = options.pop("output", "table")
    Watch(cast(Watcher, Prepared(*events)), output, **options).run(demo=False, end_with_demo=False)
    return capfd.readouterr().out.splitlines()


PROBE = replace(make_event("exec"), process=Process(argv=("healthy",)))


def test_probes_are_folded_in_a_table_only(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = [
        replace(each, exec_id=f"e{number}")
        for number in range(9)
        for each in (PROBE, replace(PROBE, type="exec_ended", exit=Exit(code=0)))
    ]
    lines = shown(capfd, monkeypatch, *probes)
    assert [line.split()[1] for line in lines[1:]] == ["exec", "exec_ended", "exec", "exec_ended"]
    assert lines[-1].endswith("(8 times)")
    for options in ({"output": "json"}, {"output": "logfmt"}, {"fold_exec": 0}):
        assert (
            len([line for line in shown(capfd, monkeypatch, *probes, **options) if "healthy" in line]) == 18
        )


def test_types(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [make_event("creating"), make_event("created"), make_event("stopped")]
    lines = shown(capfd, monkeypatch, *events, types=("stopped", "creating"))
    assert [line.split()[1] for line in lines[1:]] == ["creating", "stopped"]


def test_a_reader_that_leaves_ends_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(fd: int, data: bytes) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("startgate.cli.watch.os.write", gone)
    assert shown(capfd, monkeypatch, PROBE) == []
