"""The spool: numbers without holes, whatever becomes of room and of workers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from startgate.errors import UsageError
from startgate.journal import spool as spools
from startgate.journal.spool import Spool, prepare, segments
from startgate.lines import line
from startgate.testing import make_event


def a_line(number: int, size: int = 0) -> bytes:
    return line(make_event("created", name="x" * size), number)


def written(directory: Path) -> list[dict[str, Any]]:
    data = b"".join(Path(segment.path).read_bytes() for segment in segments(str(directory)))
    return [json.loads(text) for text in data.splitlines()]


def numbers(events: list[dict[str, Any]]) -> Iterator[int]:
    """Yield the numbers that the lines stand for."""
    for event in events:
        yield from range(event["sequence"] - event.get("lines", 1) + 1, event["sequence"] + 1)


def test_lines_are_there_in_order_and_in_segments(tmp_path: Path) -> None:
    with closing(Spool(str(tmp_path), segment=8 << 10)) as spool:
        assert all(spool.add(a_line(number), number) for number in range(1, 31))
    assert list(numbers(written(tmp_path))) == list(range(1, 31))
    assert len(segments(str(tmp_path))) > 2
    assert all(os.stat(segment.path).st_size <= 8 << 10 for segment in segments(str(tmp_path)))


def test_where_there_is_no_room_one_line_tells_of_all(tmp_path: Path) -> None:
    with closing(Spool(str(tmp_path), segment=8 << 10, bound=32 << 10)) as spool:
        added = [spool.add(a_line(number), number) for number in range(1, 61)]
        kept = added.index(False)
        assert not any(added[kept:])
        for segment in segments(str(tmp_path))[:-1]:
            os.unlink(segment.path)  # somebody took them out
        assert spool.add(a_line(61), 61)
    loss, last = written(tmp_path)[-2:]
    assert (loss["type"], loss["lines"], loss["sequence"], last["sequence"]) == ("lost", 60 - kept, 60, 61)
    assert f"{60 - kept} lines were dropped" in loss["reason"]["message"]


def test_a_half_line_of_a_dead_worker_is_cut_off(tmp_path: Path) -> None:
    with closing(Spool(str(tmp_path))) as spool:
        spool.add(a_line(1), 1)
    path = segments(str(tmp_path))[0].path
    with open(path, "ab") as file:
        file.write(a_line(2)[:-10])
    with closing(Spool(str(tmp_path))) as spool:
        assert spool.add(a_line(2), 2)
    assert list(numbers(written(tmp_path))) == [1, 2]


def test_a_line_that_the_worker_before_wrote_does_not_come_twice(tmp_path: Path) -> None:
    for numbers_of_one in ((1, 2, 3), (3, 4)):  # it died before it could say that 3 is out
        with closing(Spool(str(tmp_path))) as spool:
            assert all(spool.add(a_line(number), number) for number in numbers_of_one)
    assert list(numbers(written(tmp_path))) == [1, 2, 3, 4]


def test_a_daemon_goes_on_with_the_numbers_of_the_one_before(tmp_path: Path) -> None:
    assert prepare(str(tmp_path / "spool")) == 0
    directory = str(tmp_path / "spool")
    with closing(Spool(directory, segment=2 << 10, bound=3 << 10)) as spool:
        for number in range(1, 11):
            spool.add(a_line(number), number)
    assert written(tmp_path / "spool")[-1]["sequence"] < 10
    assert prepare(directory) == 10  # dropped ones are told by the next daemon
    with closing(Spool(directory)) as spool:
        assert spool.add(a_line(11), 11)
    assert list(numbers(written(tmp_path / "spool"))) == list(range(1, 12))


def test_another_boot_begins_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Spool(str(tmp_path))) as spool:
        spool.add(a_line(1), 1)
    monkeypatch.setattr(spools, "boot_id", lambda: "another")
    assert prepare(str(tmp_path)) == 0


def test_what_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="may be written by others"):
        prepare(str(tmp_path))


def test_no_memory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Spool(str(tmp_path))) as spool:
        spool.add(a_line(1), 1)
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
        assert not spool.add(a_line(2), 2)
        monkeypatch.setattr(os, "write", real)
        assert spool.add(a_line(3), 3)
    assert [event["type"] for event in written(tmp_path)] == ["created", "lost", "created"]
    assert list(numbers(written(tmp_path))) == [1, 2, 3]


def test_it_goes_on_after_an_exception_from_nowhere(tmp_path: Path) -> None:
    with closing(Spool(str(tmp_path))) as spool:
        spool.add(a_line(1), 1)
        os.write(spool._fd, a_line(2))  # written, and not noted: a signal's handler raised
        spool.reopen()
        assert spool.add(a_line(3), 3)
    assert list(numbers(written(tmp_path))) == [1, 2, 3]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["add", "add", "add", "large", "die", "torn", "take"]), max_size=60))
def test_numbers_have_no_holes(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    directory = tmp_path_factory.mktemp("spool")
    taken: list[dict[str, Any]] = []
    number = 0
    spool = Spool(str(directory), segment=4 << 10, bound=12 << 10)

    def take(last: bool) -> None:
        found = segments(str(directory))
        for segment in found if last else found[:-1]:
            taken.extend(json.loads(text) for text in Path(segment.path).read_bytes().splitlines())
            os.unlink(segment.path)

    for step in steps:
        if step in ("add", "large"):
            number += 1
            spool.add(a_line(number, 3000 * (step == "large")), number)
        elif step == "take":
            take(last=False)
        else:
            spool.close()
            if step == "torn":
                with open(segments(str(directory))[-1].path, "ab") as file:
                    file.write(b'{"half')
            spool = Spool(str(directory), segment=4 << 10, bound=12 << 10)
    take(last=False)
    spool.add(a_line(number + 1), number + 1)
    spool.close()
    take(last=True)
    assert list(numbers(taken)) == list(range(1, number + 2))
