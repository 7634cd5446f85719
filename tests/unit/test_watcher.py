"""The library's door, as far as it opens without a kernel."""

from __future__ import annotations

from typing import Any

import pytest

import startgate
from startgate.errors import StartgateError
from startgate.watcher import Watcher


@pytest.mark.parametrize("timeout", [0, -1, -0.001, float("-inf")])
def test_a_hold_must_take_some_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="hold_timeout"):
        Watcher(hold_timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 3601])
def test_a_hold_must_end(timeout: float) -> None:
    with pytest.raises(ValueError, match="hold_timeout"):
        Watcher(hold_timeout=timeout)


def test_before_the_start_there_are_no_events() -> None:
    watcher = Watcher()
    assert (watcher.exec_records, watcher.binaries) == ("none", [])
    with pytest.raises(StartgateError, match="not started"):
        iter(watcher)
    watcher.close()


def test_callbacks_are_registered_in_two_ways() -> None:
    watcher = Watcher()
    seen: list[startgate.Event] = []

    @watcher.on("created")
    def decorated(event: startgate.Event) -> None:
        seen.append(event)

    assert watcher.on("stopped", seen.append) == seen.append
    assert callable(decorated)


def test_an_event_type_that_is_none() -> None:
    wrong: Any = "create"
    with pytest.raises(ValueError, match="no callbacks for 'create'"):
        Watcher().on(wrong, print)


def test_the_public_names_are_there() -> None:
    for name in startgate.__all__:
        assert getattr(startgate, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        startgate.Nope  # noqa: B018
