"""`verify` finds whatever is done to a journal, and nothing where nothing was done."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from startgate.cli.verify import show
from startgate.counter import Counter, Executions
from startgate.errors import UsageError
from startgate.events import Event, timestamp
from startgate.journal import rows
from startgate.journal.agent import Agent
from startgate.journal.database import files, open_to_read
from startgate.journal.report import Head, Report
from startgate.journal.spool import Spool
from startgate.journal.verify import Verifier
from startgate.journal.writer import Writer
from startgate.listeners import lost
from startgate.testing import make_event
from tests.unit.journals import START, Clock, lines, lives, write


@pytest.fixture(scope="module")
def three_lives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, lines(lives(3)))
    return directory


def verify(directory: Path, **options: object) -> Report:
    return Verifier(str(directory), **options).run()  # type: ignore[arg-type]


def change(directory: Path, *statements: str, file: int = -1) -> None:
    with closing(sqlite3.connect(files(str(directory))[file].path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_an_untouched_journal_is_complete(tmp_path: Path) -> None:
    clock = Clock()
    with closing(Writer(str(tmp_path), now=clock)) as writer:
        writer.append(lines(lives(5)))
        clock.now += 86400
        writer.append(lines(lives(5), first=21))
    report = verify(tmp_path)
    assert (report.findings, report.rows, report.complete) == ([], 40, True)
    assert Head.parse(report.head).position == 40


@pytest.mark.parametrize(
    ("done", "found"),
    [
        ("DELETE FROM events WHERE id = 7", "rows 7 to 7 are missing: they were deleted"),
        ("DELETE FROM events WHERE id = 1", "rows 1 to 1 are missing"),
        ("UPDATE events SET rest = (SELECT rest FROM events WHERE id = 3) WHERE id = 7", "row 7 was altered"),
        ("UPDATE events SET rest = x'00' WHERE id = 7", "row 7 can't be read"),
        ("UPDATE events SET rest = NULL WHERE id = 7", "row 7 can't be read"),
        ("UPDATE events SET at = at + 1 WHERE id = 7", "row 7 was altered"),
        ("UPDATE events SET time = time + 1 WHERE id = 7", "row 7: what it is looked up by was altered"),
        ("UPDATE events SET type = 3 WHERE id = 5", "row 5: what it is looked up by was altered"),
        ("UPDATE events SET held = 1 WHERE id = 5", "row 5: what it is looked up by was altered"),
        ("UPDATE events SET sequence = 99 WHERE id = 5", "row 5: what it is looked up by was altered"),
        ("UPDATE boots SET boot_id = 'another'", "row 1: what it is looked up by was altered"),
        ("UPDATE events SET container = 1 WHERE id = 5", "row 5 was altered"),
        ("UPDATE events SET hash = zeroblob(32) WHERE id = 5", "row 5 was altered"),
        ("DELETE FROM containers WHERE id = 1", "row 1 can't be read: its container was deleted"),
        (
            "UPDATE containers SET body = (SELECT body FROM containers WHERE id = 5) WHERE id = 2",
            "row 2 was altered",
        ),
        (
            "UPDATE containers SET image = 'harmless' WHERE id = 2",
            "what container 2 is looked up by was altered",
        ),
        ("UPDATE containers SET name = 'x' WHERE whole = 0", "what container 3 is looked up by was altered"),
    ],
)
def test_what_is_done_to_rows(three_lives: Path, tmp_path: Path, done: str, found: str) -> None:
    shutil.copytree(three_lives, tmp_path, dirs_exist_ok=True)
    change(tmp_path, done)
    report = verify(tmp_path)
    assert any(found in finding for finding in report.findings), report.findings
    assert len(report.findings) <= 4 or "boots" in done


def test_two_rows_are_exchanged(tmp_path: Path) -> None:
    write(tmp_path, lines(lives(3)))
    change(
        tmp_path,
        "UPDATE events SET id = 100 WHERE id = 5",
        "UPDATE events SET id = 5 WHERE id = 6",
        "UPDATE events SET id = 6 WHERE id = 100",
    )
    assert any("row 5 was altered" in finding for finding in verify(tmp_path).findings)


def test_rows_are_numbered_anew_after_one_was_deleted(tmp_path: Path) -> None:
    write(tmp_path, lines(lives(3)))
    change(tmp_path, "DELETE FROM events WHERE id = 5", "UPDATE events SET id = id - 1 WHERE id > 5")
    findings = verify(tmp_path).findings
    assert any("row 5 was altered, or does not follow" in finding for finding in findings)
    assert any("lines 5 to 5 are missing, and nothing tells why" in finding for finding in findings)


def test_a_row_is_left_out_and_the_chain_made_anew(tmp_path: Path) -> None:
    """Who can write all of it can make a chain that holds: numbers have a hole, and a noted head is gone."""
    data = lines(lives(3))
    write(tmp_path / "one", data)
    head = Head.parse(verify(tmp_path / "one").head)
    write(tmp_path / "two", data[:4] + data[5:])
    assert [
        f"lines {n} to {n} are missing" in f for n, f in ((5, verify(tmp_path / "two").findings[0]),)
    ] == [True]
    assert any("the end is missing: row 12 was" in f for f in verify(tmp_path / "two", head=head).findings)
    write(tmp_path / "three", [data[0].replace(b"web-0", b"web-9"), *data[1:]])
    assert verify(tmp_path / "three").complete
    assert verify(tmp_path / "three", head=head).findings == [
        "row 12 is another one than it was: rows up to it were replaced"
    ]
    assert verify(tmp_path / "one", head=head).complete


def test_the_end_is_cut_off(tmp_path: Path) -> None:
    spool, journal = tmp_path / "spool", tmp_path / "journal"
    spool.mkdir()
    with closing(Spool(str(spool))) as writing:
        for number, line in enumerate(lines(lives(3)), 1):
            writing.add(line + b"\n", number)
    with closing(Writer(str(journal))) as writer:
        Agent(str(spool), writer).catch_up()
    assert verify(journal, spool=str(spool)).complete
    change(journal, "DELETE FROM events WHERE id > 10")
    assert verify(journal).complete  # nothing else tells
    (finding,) = verify(journal, spool=str(spool)).findings
    assert "the spool has given line 12, the last row is of line 10" in finding
    change(journal, "DELETE FROM events")
    assert not verify(journal, spool=str(spool)).complete


def test_a_file_is_taken_away(tmp_path: Path) -> None:
    clock = Clock()
    with closing(Writer(str(tmp_path), now=clock)) as writer:
        for day in range(4):
            writer.append(lines(lives(1), first=1 + 4 * day))
            clock.now += 86400
    found = files(str(tmp_path))
    os.unlink(found[1].path)
    assert any("files are missing between two that are there: 000002" in f for f in verify(tmp_path).findings)
    os.unlink(found[0].path)
    report = verify(tmp_path)
    assert report.complete and "2 files before are not there any more" in report.notes[0]
    change(tmp_path, "DELETE FROM events", file=0)
    assert any("does not follow the file before it" in finding for finding in verify(tmp_path).findings)


def test_dropped_lines_are_told(tmp_path: Path) -> None:
    gap = replace(lost("no room"), lines=3)
    write(tmp_path, lines(lives(1)) + lines([gap], first=7) + lines(lives(1), first=8))
    report = verify(tmp_path)
    assert (report.findings, report.dropped) == ([], 3)


def counted(start: int, unseen: int, since: str = "today") -> Event:
    count = Counter(since, Executions(start, 0), Executions(unseen, 0))
    return Event(type="counted", time=timestamp(START), gate="none", container=None, counted=count)


MISSED = replace(make_event("creating"), gate="none")


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([counted(5, 0)], 0),
        ([counted(5, 2)], 2),
        ([lost("no worker", 2), counted(5, 2)], 0),
        ([counted(5, 2), lost("no worker", 2)], 0),  # told late
        ([lost("no worker", 1), counted(5, 2)], 1),
        ([MISSED, counted(5, 1)], 0),
        ([lost("another loss"), counted(5, 1)], 1),
        ([lost("no worker", 1), counted(5, 1), counted(9, 1), counted(9, 2)], 1),
        ([lost("no worker", 3), counted(5, 1), counted(2, 1, "tomorrow")], 1),
        ([counted(5, 0), lost("no worker", 1), counted(2, 1, "tomorrow")], 0),
    ],
)
def test_the_count_is_compared_with_what_is_told(tmp_path: Path, events: list[Event], missing: int) -> None:
    write(tmp_path, lines(events))
    findings = verify(tmp_path).findings
    assert [f"of {missing} nothing tells" in finding for finding in findings] == [True] * bool(missing)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.sampled_from(["events", "containers"]),
    row=st.integers(1, 6),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_any_bit_that_is_turned_is_found(
    three_lives: Path, tmp_path_factory: pytest.TempPathFactory, table: str, row: int, at: int, bit: int
) -> None:
    directory = tmp_path_factory.mktemp("copy")
    shutil.copytree(three_lives, directory, dirs_exist_ok=True)
    column = "rest" if table == "events" else "body"
    with closing(sqlite3.connect(files(str(directory))[0].path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        (before,) = connection.execute(f"SELECT {column} FROM {table} WHERE id = ?", (row,)).fetchone()
        after = bytearray(before)
        after[at % len(after)] ^= 1 << bit
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (bytes(after), row))
        connection.commit()
    if expands_to_the_same(directory, column, bytes(before), bytes(after)):
        return  # padding of the compressed form, which says nothing
    assert not verify(directory).complete


def expands_to_the_same(directory: Path, column: str, before: bytes, after: bytes) -> bool:
    file = open_to_read(files(str(directory))[0].path)
    codec = file.lines if column == "rest" else file.containers
    file.close()
    try:
        return codec.expand(before) == codec.expand(after)
    except ValueError:
        return False


def test_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, lines([*lives(1), lost("no worker", 1), counted(3, 1)]))
    assert show(str(tmp_path), str(tmp_path / "none"), None, "text")
    printed = capsys.readouterr().out
    assert "BPF counted 3 starts and 0 execs by root, until 2026" in printed
    assert "gates held, and told, 1 and 1 by now; no gate saw 1, and 1 are told as such" in printed
    assert printed.splitlines()[-1].startswith("complete; 6 rows, head 6:")
    head = printed.split()[-1]
    change(tmp_path, "DELETE FROM events WHERE id = 2")
    assert not show(str(tmp_path), str(tmp_path / "none"), head, "json")
    report = json.loads(capsys.readouterr().out)
    assert report["complete"] is False and "rows 2 to 2" in report["findings"][0]
    for wrong in ("x", "1:", "1:00", "x:" + "0" * 64):
        with pytest.raises(UsageError, match="--head"):
            show(str(tmp_path), "", wrong, "text")
    with pytest.raises(UsageError, match="no journal"):
        show(str(tmp_path / "none"), "", None, "text")
    assert len(rows.START) == 32
