"""What the benchmarks make of their samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import cost
import pytest
import report
import sides
import stats
import turns
from report import Chapter, Figure


def test_noise_that_hits_a_whole_round_cancels_out() -> None:
    base = [[10.0, 11, 12], [20.0, 22, 24], [10.0, 11, 12]]
    twice = [[value * 2 for value in samples] for samples in base]
    assert stats.ratio(twice, base) == (2, 2, 2)
    assert stats.added(twice, base) == (11, 11, 22)


def test_what_a_side_adds_to_another() -> None:
    nothing, floor, ours = [[10.0]] * 4, [[12.0]] * 4, [[16.0]] * 4
    assert stats.added_ratio(ours, floor, nothing).value == 3


def test_there_is_no_multiple_of_noise() -> None:
    assert math.isinf(stats.added_ratio([[16.0]], [[9.0]], [[10.0]]).value)


def test_what_is_added_beyond_noise() -> None:
    """Also where the other one adds less than nothing."""
    nothing, floor, ours = [[10.0]] * 4, [[8.0]] * 4, [[16.0]] * 4
    assert stats.excess(ours, floor, nothing, 1.5) == (9, 9, 9)


def test_sides_take_turns_in_another_order_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE", 0)
    monkeypatch.setattr(turns, "_SETTLE", 0)
    seats = {turns.Seat(tmp_path / name, Mock()): Mock(sides.Nothing()) for name in "abc"}
    at_work: set[str] = set()

    @contextmanager
    def listening(name: str) -> Iterator[sides.Listening]:
        at_work.add(name)
        yield sides.Listening(name)
        at_work.remove(name)

    for seat, side in seats.items():
        side.name = seat.runtime.name
        side.listening = partial(listening, side.name)
    order: list[str] = []

    def measure(seat: turns.Seat, _: sides.Listening) -> int:
        assert len(at_work) == 3
        order.append(seat.runtime.name)
        return len(order)

    found = turns.take_turns("it", seats, 20, measure)
    rounds = ["".join(order[at : at + 3]) for at in range(3, len(order), 3)]
    assert len(rounds) == 20 and {"".join(sorted(one)) for one in rounds} == {"abc"} and len(set(rounds)) > 2
    assert all(order[at - 1] == name for name, numbers in found.items() for at in numbers)


def test_what_is_added_is_judged_beside_the_floor() -> None:
    chapter = Chapter("It", "what was run", cost.HEADER)
    sides = {"nothing": 10.0, "floor": 9.0, "startgate, table": 12.0, "startgate, procfs": 99.0}
    cost.table(chapter, "it", {name: [[ms * 1e6]] * 4 for name, ms in sides.items()}, limit=1.5)
    judged = [(one.name, one.value, one.ok) for one in chapter.figures if one.limit is not None]
    assert judged == [("it.table.over-floor", 3500.0, False)]


def test_the_interval_holds_the_value() -> None:
    found = stats.median([[float(n)] for n in range(20)])
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("value", "spread", "limit", "ok"),
    [
        (1.0, None, 2.0, True),
        (2.0, None, 2.0, False),
        (1.0, None, None, None),
        (1.0, (0.5, 1.9), 2.0, True),
        (1.0, (0.5, 2.0), 2.0, None),
        (3.0, (1.9, 4.0), 2.0, None),
        (3.0, (2.0, math.inf), 2.0, False),
        (math.inf, (math.inf, math.inf), 2.0, False),
    ],
)
def test_a_goal_is_met_or_not_or_can_not_be_told(
    value: float, spread: tuple[float, float] | None, limit: float | None, ok: bool | None
) -> None:
    figure = Figure("name", value, "x", "what", limit, spread)
    assert figure.ok is ok
    row = figure.row()
    assert row["ok"] is ok and (row["goal"] is None) == (limit is None)
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "told"),
    [(1.0034, "1.003 x"), (-2518.4, "-2,518 x"), (0.0, "0 x"), (999.96, "1000 x"), (math.inf, "inf x")],
)
def test_a_figure_is_told_with_four_digits(value: float, told: str) -> None:
    chapter = Chapter("One", "what was run", [], figures=[Figure("f", value, "x", "it", 1.01)])
    assert report.goals([chapter]).rows[0][1] == told


def test_the_document_is_written_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    chapter = Chapter("One", "what was run", ["a", "b"], [["1", "2"]], [Figure("f", 3.0, "ms", "it", 2.0)])
    document.write_text(f"before\n{report.MARKERS[0]}\nold\n{report.MARKERS[1]}\nafter\n")
    for _ in range(2):
        report.write(tmp_path / "build", document, {"CPU": "a fast one"}, [chapter], "make bench")
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert text.count("| 1 | 2 |") == 1 and "old" not in text
    assert "- CPU: a fast one" in text and "| it | 3 ms | < 2 ms | **no** |" in text
    assert [row["name"] for row in json.loads((tmp_path / "build/bench.json").read_text())] == ["f"]


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("something else\n")
    with pytest.raises(ValueError, match="has no line"):
        report.write(tmp_path, document, {}, [], "make bench")
    assert document.read_text() == "something else\n"
