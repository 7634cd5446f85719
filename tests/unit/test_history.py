"""`history`: filters see all of a container, whatever the line says; outputs say what lines say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from startgate.cli import app
from startgate.errors import UsageError
from startgate.events import Caller, Event, timestamp
from startgate.filters import compile_filter
from startgate.journal.history import Query, Search, conjuncts, top
from startgate.journal.reader import Journal
from startgate.listeners import lost
from startgate.testing import make_event
from tests.unit.journals import START, life, lines, lives, write

EVENTS: list[Event] = [*lives(6), lost("a loss")]
DATA = lines(EVENTS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("journal")
    write(directory, DATA)
    return directory


@pytest.fixture
def journal(directory: Path) -> Iterator[Journal]:
    with Journal(str(directory)) as found:
        yield found


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("a && b", ["a ", " b"]),
        ("a && (b || c) && d", ["a ", " (b || c) ", " d"]),
        ("a && b || c", ["a && b || c"]),
        ("a ? b : c && d", ["a ? b : c && d"]),
        ('x == \'a && b\' && y == "\\" && "', ["x == 'a && b' ", ' y == "\\" && "']),
        ("all(x, x && y)", ["all(x, x && y)"]),
    ],
)
def test_a_filter_is_split_where_all_has_to_be_true(expression: str, parts: list[str]) -> None:
    assert conjuncts(expression) == parts


@pytest.mark.parametrize(
    "expression",
    [
        'container.image == "app:1"',
        'container.name == "web-3"',
        'container.name == "web-3" && type == "exec"',
        'container.args.exists(a, a == "4")',  # which the line of an exec does not have
        'container.args.exists(a, a == "4") && type != "creating"',
        "container.pid > 1002",
        "exit.code == 1",
        'exit.code == 1 && container.kubernetes.pod == "web-1"',
        'type == "stopped" || container.image == "app:2"',
        "container == null",
        'container != null && container.privileged == false && gate == "exec"',
        '(container.image == "app:1") == true && type in ["exec", "stopped"]',
        'container.id == "no such"',
        "true",
    ],
)
def test_a_filter_finds_what_it_finds_one_by_one(journal: Journal, expression: str) -> None:
    matches = compile_filter(expression)
    expected = [line for line, event in zip(DATA, EVENTS, strict=True) if matches(event)]
    found = [row.line for row in Search(journal, Query(keep=expression)).rows()]
    assert found == expected
    newest = [row.line for row in Search(journal, Query(keep=expression, last=2)).rows()]
    assert newest == expected[-2:]


def test_a_wrong_filter_is_told_at_its_place(journal: Journal) -> None:
    with pytest.raises(UsageError, match="at 1:29"):
        Search(journal, Query(keep='type == "exec" && container.imag == "x"'))


def test_the_top(tmp_path: Path) -> None:
    caller = Caller(7, "containerd-shim")
    events = [
        replace(event, container=event.container and replace(event.container, started_by=caller))
        for number in (1, 1, 1, 2)
        for event in life(number)
    ]
    oom = replace(make_event("oom"), container=events[0].container, time=timestamp(START))
    denied = replace(make_event("denied", name="bad", image="evil"), time=timestamp(START), held_us=9000)
    write(tmp_path, lines([*events, oom, oom, denied]))
    with Journal(str(tmp_path)) as journal:
        found = top(journal, Query(), 3)
        assert found["restarts"] == [(3, "web-1")]
        assert found["out of memory"] == [(2, "web-1")]
        assert found["denied"] == [(1, "bad")]
        assert found["started by"] == [(4, "containerd-shim, uid 0")]
        assert found["slowest holds"][:2] == [(9000, "denied bad"), (1002, "creating web-2")]
        assert top(journal, Query(until=START), 3)["slowest holds"] == []


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["history", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_it_prints(directory: Path) -> None:
    where = ("--journal", str(directory))
    assert run(*where, "-o", "json").encode().splitlines() == DATA
    assert run(*where, "-o", "json", "--until", "9999d") == ""
    table = run(*where, "--container", "web-1").splitlines()
    assert table[0].startswith("-- 2026-") and [line.split()[1] for line in table[2:]] == [
        "creating",
        "created",
        "exec",
        "stopped",
    ]
    found = list(csv.DictReader(io.StringIO(run(*where, "-o", "csv", "--type", "exec"))))
    assert [(row["name"], row["image"], row["pod"]) for row in found] == [
        (f"web-{number}", f"app:{number % 3}", f"web-{number % 2}") for number in range(6)
    ]
    ranked = json.loads(run("top", *where, "-o", "json"))
    assert ranked["slowest holds"][0] == {"number": 1005, "what": "creating shop/web-1 web-5"}
    assert "SLOWEST HOLDS\n     1.0ms  creating" in run("top", *where)


def test_a_cell_is_no_formula(tmp_path: Path) -> None:
    event = replace(make_event("created", name='=HYPERLINK("x")', image="a\nb"), time=timestamp(START))
    write(tmp_path, lines([event]))
    (row,) = csv.DictReader(io.StringIO(run("--journal", str(tmp_path), "-o", "csv")))
    assert (row["name"], row["image"]) == ('\'=HYPERLINK("x")', "a?b")


def test_a_perfetto_trace(tmp_path: Path) -> None:
    pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="an extra: perfetto")
    write(tmp_path, DATA)
    result = CliRunner().invoke(app, ["history", "--journal", str(tmp_path), "-o", "perfetto"])
    packets = pb.Trace.FromString(result.stdout_bytes).packet
    kinds = [packet.track_event.type for packet in packets if packet.HasField("track_event")]
    event = pb.TrackEvent
    assert [
        kinds.count(kind) for kind in (event.TYPE_SLICE_BEGIN, event.TYPE_SLICE_END, event.TYPE_INSTANT)
    ] == [
        6,
        6,
        12,
    ]
    names = {packet.track_descriptor.name for packet in packets if packet.HasField("track_descriptor")}
    assert {"shop/web-0", "shop/web-1", "web-5"} <= names
