"""The journal: what was written comes back, to the byte, by each way of asking."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from startgate.errors import UsageError
from startgate.events import EVENT_TYPES, Event
from startgate.foreign import json_line
from startgate.journal import pages, rows
from startgate.journal.agent import Agent, Place
from startgate.journal.database import TYPES, files, type_number
from startgate.journal.reader import Cursor, Journal, JournalError, Row
from startgate.journal.spool import Spool, segments
from startgate.journal.times import moment, size
from startgate.journal.verify import Verifier
from startgate.journal.writer import Writer
from startgate.testing import make_event
from tests.unit.journals import START, Clock, life, lines, lives, write

texts = st.text(max_size=20)


@pytest.fixture(scope="module")
def ten_lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, lines(lives(10)))
    return directory


def of(found: list[Row]) -> list[bytes]:
    return [row.line for row in found]


@given(name=texts, label=texts, image=st.none() | texts, number=st.integers(1, 2**53))
def test_a_line_is_split_and_joined_again(name: str, label: str, image: str | None, number: int) -> None:
    event = make_event("created", name=name, image=image, labels={label: name})
    (line,) = lines([event], number)
    row = rows.split(line)
    assert rows.join(row.rest, row.at, row.container) == line
    assert (row.sequence, row.type) == (number, "created")
    if row.container:
        assert (rows.columns(row.container).name, rows.columns(row.container).image) == (name, image)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'{"type":"x","time":"yesterday","sequence":1}', b"\xff"]
)
def test_what_is_no_event_is_told(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"event|invalid literal|unpack"):
        rows.split(line)


def test_each_type_has_a_number_for_good() -> None:
    assert [type_number(name) for name in ("creating", "stopped", "lost", "counted")] == [0, 7, 10, 11]
    assert set(TYPES) == set(EVENT_TYPES)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    data = lines(lives(700))
    write(tmp_path, data)
    with Journal(str(tmp_path)) as journal:
        found = list(journal.events())
        assert of(found) == data
        assert [row.sequence for row in found] == list(range(1, len(data) + 1))
        assert of(list(journal.events(newest_first=True, limit=3))) == data[:-4:-1]
        assert of(list(journal.events(after=found[1500].cursor, limit=600))) == data[1501:2101]
        assert list(journal.events(after=journal.last_cursor())) == []


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"container": "web-3"}, lambda e: e.container.name == "web-3"),
        ({"container": f"{3:064x}"}, lambda e: e.container.name == "web-3"),
        (
            {"container": f"{3:064x}", "types": ["exec"]},
            lambda e: e.container.name == "web-3" and e.type == "exec",
        ),
        ({"container": "boot-4"}, lambda e: e.container.start_id == "boot-4"),
        ({"container": "web"}, lambda e: False),
        ({"image": "app:1"}, lambda e: int(e.container.name[4:]) % 3 == 1),
        ({"pod": "shop/web-1"}, lambda e: int(e.container.name[4:]) % 2 == 1),
        ({"pod": "web-1"}, lambda e: int(e.container.name[4:]) % 2 == 1),
        ({"pod": "other/web-1"}, lambda e: False),
        ({"types": ["stopped", "exec"]}, lambda e: e.type in ("stopped", "exec")),
        (
            {"since": START + 3 * 1000**3, "until": START + 5 * 1000**3},
            lambda e: e.container.name in ("web-3", "web-4"),
        ),
        (
            {"since": START + 3 * 1000**3, "image": "app:0"},
            lambda e: e.container.name in ("web-3", "web-6", "web-9"),
        ),
    ],
)
@pytest.mark.parametrize("many", [0, pages.MANY])
def test_each_way_of_asking(
    ten_lives: Path,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
    asked: dict[str, object],
    wanted: Callable[[Event], bool],
) -> None:
    monkeypatch.setattr(pages, "MANY", many)
    monkeypatch.setattr(pages, "AT_ONCE", 3)
    events = list(lives(10))
    data = lines(events)
    expected = [line for line, event in zip(data, events, strict=True) if wanted(event)]
    with Journal(str(ten_lives)) as journal:
        assert of(list(journal.events(**asked))) == expected  # type: ignore[arg-type]
        assert of(list(journal.events(**asked, newest_first=True))) == expected[::-1]  # type: ignore[arg-type]


def test_containers_are_there_once(tmp_path: Path) -> None:
    write(tmp_path, lines(lives(3)) + lines(lives(3), first=13))
    with Journal(str(tmp_path)) as journal:
        whole = list(journal.containers())
        assert [(one.start_id, one.container().pid) for one in whole] == [
            (f"boot-{number}", pid) for number in range(3) for pid in (None, 1000 + number)
        ]
        assert len(list(journal.containers(whole=False))) == 9
        assert [one.container().name for one in journal.containers(since=START + 2 * 1000**3)] == [
            "web-2"
        ] * 2


def test_a_day_has_a_file_and_a_container_that_runs_on_is_in_each(tmp_path: Path) -> None:
    clock = Clock()
    events = life(1)
    with closing(Writer(str(tmp_path), now=clock)) as writer:
        writer.append(lines(events[:2]))
        for day in range(1, 4):
            clock.now += 86400
            writer.append(lines([events[2]], 2 + day))
        clock.now -= 2 * 86400  # somebody set the clock
        writer.append(lines([events[3]], 6))
    assert [name.ordinal for name in files(str(tmp_path))] == [1, 2, 3, 4, 5]
    with Journal(str(tmp_path)) as journal:
        assert [row.sequence for row in journal.events()] == [1, 2, 3, 4, 5, 6]
        assert [row.sequence for row in journal.events(image="app", types=["exec"])] == [3, 4, 5]


def test_old_files_and_a_large_journal_are_dropped_whole(tmp_path: Path) -> None:
    clock = Clock()
    with closing(Writer(str(tmp_path), now=clock, max_days=3, max_bytes=1 << 30)) as writer:
        for day in range(6):
            writer.append(lines(life(day), 1 + 4 * day))
            clock.now += 86400
        assert len(writer.prune()) == 3
        assert [name.ordinal for name in files(str(tmp_path))] == [4, 5, 6]
    with closing(Writer(str(tmp_path), now=clock, max_bytes=1)) as writer:
        writer.prune()
        assert [name.ordinal for name in files(str(tmp_path))] == [6]


def test_a_cursor_of_another_journal_or_of_what_was_dropped(tmp_path: Path) -> None:
    clock = Clock()
    with closing(Writer(str(tmp_path), now=clock, max_days=1)) as writer:
        writer.append(lines(life(1)))
        with Journal(str(tmp_path)) as journal:
            first = journal.first_cursor()
            assert first and Cursor.parse(str(first)) == first
            clock.now += 3 * 86400
            writer.append(lines(life(2), 5))
            writer.prune()
            with pytest.raises(JournalError, match="not kept any more"):
                list(journal.events(after=first))
            with pytest.raises(UsageError, match="of another journal"):
                list(journal.events(after=Cursor("0", 0)))
            assert [row.sequence for row in journal.events()] == [5, 6, 7, 8]
    for text in ("", "x", "a-", "a-x", "-3"):
        with pytest.raises(UsageError, match="no cursor"):
            Cursor.parse(text)


def test_a_reader_is_woken(tmp_path: Path) -> None:
    with closing(Writer(str(tmp_path))) as writer, Journal(str(tmp_path)) as journal:
        assert not journal.wait(0)
        waited = threading.Thread(target=lambda: journal.wait(10), name="startgate-test")
        waited.start()
        writer.append(lines(life(1)))
        waited.join(5)
        assert not waited.is_alive()
        assert len(list(journal.events())) == 4


def test_there_is_no_journal(tmp_path: Path) -> None:
    with Journal(str(tmp_path / "none")) as journal, pytest.raises(JournalError, match="there is no journal"):
        list(journal.events())
    (tmp_path / "000001-2026-11-28.sqlite").write_bytes(b"no database" * 100)
    with Journal(str(tmp_path)) as journal, pytest.raises(JournalError, match="can't be read"):
        list(journal.events())


def test_only_one_writes(tmp_path: Path) -> None:
    with closing(Writer(str(tmp_path))), pytest.raises(JournalError, match="another process"):
        Writer(str(tmp_path))


def test_a_newest_file_that_is_moved_away(tmp_path: Path) -> None:
    clock, data = Clock(), lines(lives(3))
    with closing(Writer(str(tmp_path), now=clock)) as writer:
        writer.append(data[:4])
        clock.now += 86400
        writer.append(data[4:8])
    os.unlink(files(str(tmp_path))[-1].path)
    with closing(Writer(str(tmp_path), now=clock)) as writer:
        writer.append(data[8:])
    (finding,) = Verifier(str(tmp_path)).run().findings
    assert "lines 5 to 8 are missing, and nothing tells why" in finding


# The agent


def fill(directory: Path, data: list[bytes], first: int = 1) -> None:
    with closing(Spool(str(directory), segment=8 << 10)) as spool:
        for number, line in enumerate(data, first):
            assert spool.add(line + b"\n", number)


def test_the_agent_takes_lines_once(tmp_path: Path) -> None:
    spool, journal, data = tmp_path / "spool", tmp_path / "journal", lines(lives(20))
    spool.mkdir()
    for at in range(0, 80, 16):
        fill(spool, data[at : at + 16], at + 1)
        with closing(Writer(str(journal))) as writer:
            agent = Agent(str(spool), writer)
            assert agent.catch_up() and agent.catch_up()
    assert len(segments(str(spool))) == 1
    with Journal(str(journal)) as read:
        assert of(list(read.events())) == data


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, journal, data = tmp_path / "spool", tmp_path / "journal", lines(lives(20))
    spool.mkdir()
    fill(spool, data)
    with closing(Writer(str(journal))) as writer:
        agent = Agent(str(spool), writer)
        pages = writer._file.sql.execute("PRAGMA page_count").fetchone()[0]
        writer._file.sql.execute(f"PRAGMA max_page_count = {pages + 2}")
        assert not agent.catch_up()
        writer._file.sql.execute("PRAGMA max_page_count = 100000")
        assert agent.catch_up()
    with Journal(str(journal)) as read:
        assert of(list(read.events())) == data


def test_an_agent_that_dies_between_commit_and_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, journal, data = tmp_path / "spool", tmp_path / "journal", lines(lives(20))
    spool.mkdir()
    fill(spool, data)
    with closing(Writer(str(journal))) as writer, monkeypatch.context() as patched:
        patched.setattr(os, "unlink", lambda path: (_ for _ in ()).throw(OSError("died")))
        assert not Agent(str(spool), writer).catch_up()
    with closing(Writer(str(journal))) as writer:
        assert Agent(str(spool), writer).catch_up()
    with Journal(str(journal)) as read:
        assert of(list(read.events())) == data


def test_a_spool_that_was_made_anew(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, lines(life(1)))
        with closing(Writer(str(journal))) as writer:
            assert Agent(str(tmp_path / name), writer).catch_up()
    with Journal(str(journal)) as read:
        assert [row.sequence for row in read.events()] == [1, 2, 3, 4] * 2


def test_what_is_no_line_is_left_out(tmp_path: Path) -> None:
    spool, journal = tmp_path / "spool", tmp_path / "journal"
    spool.mkdir()
    fill(spool, lines(life(1)))
    with open(segments(str(spool))[0].path, "ab") as file:
        file.write(b'garbage\n{"type":1}\nhalf')
    with closing(Writer(str(journal))) as writer:
        assert Agent(str(spool), writer).catch_up()
        assert Place.parse(writer.place).offset == os.stat(segments(str(spool))[0].path).st_size - 4
    with Journal(str(journal)) as read:
        assert len(list(read.events())) == 4


def test_a_batch_is_in_wholly_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lines(lives(2))
    with closing(Writer(str(tmp_path))) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(
                rows, "chain", lambda before, line: (_ for _ in ()).throw(sqlite3.OperationalError)
            )
            with pytest.raises(sqlite3.OperationalError):
                writer.append(data)
        writer.append(data)
    with Journal(str(tmp_path)) as journal:
        assert of(list(journal.events())) == data


# Times and sizes


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604800)])
def test_how_long_ago(text: str, seconds: float) -> None:
    assert moment(text, 10**6) == round((10**6 - seconds) * 1e9)


def test_moments() -> None:
    assert moment("1970-01-01T00:01Z", 0) == 60 * 10**9
    assert moment("1970-01-02T00:00:00.5+00:00", 0) == 86400_500_000_000
    for text in ("", "h", "2", "2y", "-2h", "yesterday", "9999-12-31T23:59:99"):
        with pytest.raises(UsageError, match="no time"):
            moment(text, 0)


def test_sizes() -> None:
    assert [size(text) for text in ("7", "64M", "8GiB", "1kb")] == [7, 64 << 20, 8 << 30, 1 << 10]
    with pytest.raises(UsageError, match="no size"):
        size("many")


def test_json_is_encoded_as_workers_do() -> None:
    """A line that is joined from parts is what `json_line` gave: byte for byte, escapes too."""
    data = lines([make_event("created", name="\u202e\x7f")])[0]
    assert b"\\u202e" in data and json_line(msgspec.json.decode(data)) == data
