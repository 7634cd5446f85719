from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from startgate.cli import logfmt
from startgate.cli.layout import Layout
from startgate.cli.table import Table, describe_exit, row, severity
from startgate.events import (
    EVENT_TYPES,
    Caller,
    Container,
    Event,
    EventType,
    Exit,
    Kubernetes,
    Note,
    Process,
    Reason,
)
from startgate.listeners import lost
from startgate.testing import make_event

HEX_ID = "0123456789abcdef" * 4
TIME = "2026-11-22T13:01:02.120345678Z"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


def written(*events: Event) -> list[str]:
    stream = io.StringIO()
    table = Table(stream)
    for event in events:
        table.row(event)
    return stream.getvalue().splitlines()


def event(event_type: EventType, **container: Any) -> Event:
    return replace(make_event(event_type, **container), time=TIME)


def test_the_header_comes_once_with_the_first_event() -> None:
    lines = written(event("creating"), event("created"))
    assert len(lines) == 3
    assert lines[0].split() == ["TIME", "EVENT", "CONTAINER", "PID", "HELD", "WHAT"]


def test_nothing_is_written_before_the_first_event() -> None:
    assert written() == []


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (
            event("creating", id="web", pid=None, args=("nginx", "-g"), started_by=Caller(1, "conmon")),
            "13:01:02.120 creating   web                                   runc by conmon: nginx -g",
        ),
        (
            replace(event("created", id="web", args=("nginx",)), held_us=812),
            "13:01:02.120 created    web                     4242   0.8ms  pidfile gate: nginx",
        ),
        (
            event("started", id=HEX_ID, name=None),
            "13:01:02.120 started    0123456789ab            4242          first-exec gate: -",
        ),
        (
            replace(event("exec", id=HEX_ID, name="shop"), process=Process(argv=("ls", "-l"))),
            "13:01:02.120 exec       shop                    4242          ls -l",
        ),
        (
            replace(event("stopped", id="web"), exit=Exit(code=3)),
            "13:01:02.120 stopped    web                     4242          exit 3",
        ),
        (
            replace(event("denied", id="web", pid=None), reason=Reason("not here", "no-web")),
            "13:01:02.120 denied     web                                   no-web: not here",
        ),
        (
            replace(lost("3 events were dropped"), time=TIME),
            "13:01:02.120 lost                                             3 events were dropped",
        ),
        (
            replace(event("created", id="web"), held_us=2_000_000, reason=Reason("too late")),
            "13:01:02.120 created    web                     4242 2000.0ms  pidfile gate: - (too late)",
        ),
    ],
    ids=lambda value: value.type if isinstance(value, Event) else "",
)
def test_lines(shown: Event, line: str) -> None:
    assert row(shown) == line


def test_a_pods_container_is_told_by_its_pod() -> None:
    pod = Kubernetes("default", "web-0", container="app", container_type="container")
    assert " default/web-0/app " in row(event("created", id=HEX_ID, name="app", kubernetes=pod))
    assert " default/web-0 " in row(event("created", id=HEX_ID, kubernetes=replace(pod, container=None)))
    assert " app " in row(event("created", id=HEX_ID, name="app", kubernetes=Kubernetes(sandbox_id="x")))
    assert f" default/{'w' * 30}/app " in row(
        event("created", id=HEX_ID, name="app", kubernetes=replace(pod, pod="w" * 30)), layout=Layout(name=44)
    )


def test_a_long_name_keeps_its_ends() -> None:
    assert "buildah-bui…l1234567" in row(event("created", id="buildah-buildah-al1234567"))
    assert " exactly-twenty-chars " in row(event("created", id="exactly-twenty-chars"))


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        (HEX_ID, " 0123456789ab "),
        ("deadbeefdeadbeef", " deadbeefdeadbeef "),
        ("z" * 64, " zzzzzzzzzzz…zzzzzzzz "),
        ("A" * 64, " AAAAAAAAAAA…AAAAAAAA "),
    ],
)
def test_hex_ids_are_cut_as_engines_do(identity: str, shown: str) -> None:
    assert shown in row(event("created", id=identity))


def test_each_line_is_seen_at_once(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        Table(stream).row(event("created"))
        assert len((tmp_path / "out").read_text().splitlines()) == 2


def test_an_event_that_lacks_everything() -> None:
    for event_type in EVENT_TYPES:
        bare = Event(type=event_type, gate="none", container=None)
        assert event_type in row(bare)


def test_a_time_that_is_none() -> None:
    assert row(replace(event("created"), time="yesterday")).startswith("yesterday    created")


@pytest.mark.parametrize(
    ("exit", "words"),
    [
        (Exit(), "ended"),
        (Exit(code=0), "exit 0"),
        (Exit(code=137, signal=None, oom_killed=False), "exit 137"),
        (Exit(signal=9), "killed by SIGKILL"),
        (Exit(signal=9, oom_killed=True), "killed by SIGKILL, out of memory"),
        (Exit(signal=15, requested_signal=15), "killed by SIGTERM, asked by SIGTERM"),
        (Exit(code=0, requested_signal=15), "exit 0, asked by SIGTERM"),
        (Exit(signal=9, oom_killed=False, requested_signal=9), "killed by SIGKILL, asked by SIGKILL"),
        (Exit(signal=63), "killed by signal 63"),
        (Exit(requested_signal=0), "ended, asked by signal 0"),
    ],
)
def test_exits_in_words(exit: Exit, words: str) -> None:
    assert describe_exit(exit) == words


# What goes to the stream


@pytest.mark.parametrize(
    "text", ["\033[2J", "\r", "\n", "\0", "\x07", "\x9b31m", "\u202e", "\u2028", "\x7f", "\ufeff", "\ue000"]
)
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    (_, line) = written(event("created", id=f"a{text}b", args=("x", text)))
    assert text not in line
    assert line.isprintable()
    assert "?" in line


@pytest.mark.parametrize("name", [HEX_ID, "a-long-name-" * 5])
def test_a_pipe_gets_all_of_it(name: str) -> None:
    (_, line) = written(event("created", id=name, args=("word",) * 100))
    assert name in line
    assert line.count("word") == 100


words = st.text(max_size=150)


@given(words, words, words, st.sampled_from(EVENT_TYPES), st.none() | st.integers(0, 10**15), words)
def test_whatever_an_event_says_it_is_one_line(
    name: str, word: str, comm: str, event_type: EventType, held: int | None, message: str
) -> None:
    container = Container(id=name, args=(word, word), started_by=Caller(1, comm), runtime=word, pid=held)
    shown = Event(
        type=event_type,
        time=TIME,
        gate="command",
        held_us=held,
        container=container,
        process=Process(argv=(word,)),
        reason=Reason(message, word),
    )
    stream = io.StringIO()
    Table(stream).row(shown)
    (_, line) = stream.getvalue().split("\n")[:-1]
    assert line.isprintable()
    data = shown.to_json()
    assert data.decode().isprintable()
    assert msgspec.json.decode(data) == msgspec.json.decode(msgspec.json.encode(shown))


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int, *events: Event) -> list[str]:
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((width, 24)))
    stream = Terminal()
    table = Table(stream)
    for shown in events:
        table.row(shown)
    return stream.getvalue().splitlines()


POD = Kubernetes(namespace="shop", pod="web-7d4b-x2lvq", container="app")


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (100, "TIME EVENT CONTAINER PID HELD WHAT"),
        (120, "TIME EVENT CONTAINER IMAGE PID HELD WHAT"),
        (150, "TIME EVENT CONTAINER IMAGE PID HELD WHAT"),
    ],
)
def test_a_wide_terminal_shows_more(monkeypatch: pytest.MonkeyPatch, width: int, titles: str) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = event("created", id="web", image="docker.io/library/a-long-image:1.2.3", kubernetes=POD)
    head, line = on_terminal(monkeypatch, width, shown)
    assert head.split() == titles.split()
    assert ("…rary/a-long-image:1.2.3" in line) == ("IMAGE" in titles)
    assert ("shop/web-7d4b-x2lvq/app" in line) == (width == 150)
    assert head.index("PID") + 3 == line.index("4242") + 4


def test_it_follows_a_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header comes again where the columns change; not where only their room does."""
    monkeypatch.setenv("NO_COLOR", "1")
    widths = iter([80, 100, 160, 160, 80])
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((next(widths), 24)))
    stream = Terminal()
    table = Table(stream)
    for _ in range(5):
        table.row(event("created", args=("word",) * 100))
    lines = stream.getvalue().splitlines()
    assert ["TIME" in line for line in lines] == [True, False, False, True, False, False, True, False]
    assert [len(line) for line in lines if "TIME" not in line] == [80, 100, 160, 160, 80]


def test_all_columns_and_whole_lines_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((40, 24)))
    for stream in (Terminal(), io.StringIO()):
        Table(stream, wide=True).row(event("created", image="nginx", kubernetes=POD, args=("word",) * 100))
        head, line = stream.getvalue().splitlines()
        assert "IMAGE" in head
        assert "nginx" in line and "shop/web-7d4b-x2lvq/app" in line and line.count("word") == 100


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (make_event("denied"), "error"),
        (make_event("oom"), "error"),
        (lost("x"), "warning"),
        (replace(make_event("creating"), policy=(Note("as root"),)), "warning"),
        (replace(make_event("creating"), policy=(Note("it hung", action="error"),)), "error"),
        (replace(make_event("stopped"), exit=Exit(code=0)), "plain"),
        (replace(make_event("stopped"), exit=Exit(code=1)), "warning"),
        (replace(make_event("stopped"), exit=Exit(signal=9)), "warning"),
        (replace(make_event("stopped"), exit=Exit(signal=15, requested_signal=15)), "plain"),
        (replace(make_event("stopped"), exit=Exit(signal=9, oom_killed=True)), "error"),
        (make_event("started"), "good"),
        (make_event("existing"), "quiet"),
    ],
    ids=lambda value: value.type if isinstance(value, Event) else value,
)
def test_how_much_somebody_should_care(shown: Event, expected: str) -> None:
    assert severity(shown) == expected


# Probes


def probe(*argv: str) -> Event:
    return replace(event("exec", id="web"), process=Process(argv=argv))


def test_probes_that_are_told_as_one() -> None:
    assert row(replace(probe("true"), repeated=59)).endswith("true (59 times)")
    assert row(probe("true")).endswith("true")


# logfmt


def test_logfmt() -> None:
    shown = replace(
        event("stopped", id="web", image="nginx:1", args=("sh", "-c", "exit 3"), kubernetes=POD),
        exit=Exit(code=3),
        reason=Reason('it said "no"\n\033[2J', "a-rule"),
    )
    line = logfmt.line(shown, 7).decode()
    assert line.startswith("time=2026-11-22T13:01:02.120345678Z type=stopped sequence=7 id=web ")
    assert (
        " image=nginx:1 namespace=shop pod=web-7d4b-x2lvq pid=4242 command=\"sh -c 'exit 3'\" exit_code=3"
        in line
    )
    assert line.endswith(' rule=a-rule reason="it said \\"no\\"\\n\\u001b[2J"\n')


@given(words, words)
def test_logfmt_is_one_line(name: str, word: str) -> None:
    shown = replace(event("created", id=name, args=(word,)), reason=Reason(word))
    line = logfmt.line(shown, 1).decode()
    assert line.endswith("\n") and line[:-1].isprintable()


def test_a_victim_of_the_oom_killer() -> None:
    assert row(make_event("oom")).endswith("out of memory: killed worker, pid 4243")


def test_the_end_of_what_was_executed() -> None:
    ended = replace(make_event("exec_ended", exit=Exit(code=3)), process=Process(argv=("ls", "-l"), pid=7))
    assert row(ended).endswith("  ls -l: exit 3")
    failed = replace(ended, exit=Exit(), reason=Reason("the exec failed: runc ended with exit code 255"))
    assert row(failed).endswith("  ls -l: ended (the exec failed: runc ended with exit code 255)")


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = on_terminal(monkeypatch, 100, *(event(event_type) for event_type in EVENT_TYPES))
    assert all(re.fullmatch(r"\033\[[0-9;]+m[^\033]+\033\[0m", line) for line in lines[1:])
    refused = lines[1 + EVENT_TYPES.index("denied")]
    assert refused.startswith("\033[1;31m")
    assert "denied" in refused


def test_no_colours_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in "".join(on_terminal(monkeypatch, 100, event("denied")))
    assert "\033" not in "".join(written(event("denied")))


@pytest.mark.parametrize(("width", "expected"), [(80, 80), (200, 200), (40, 40), (0, 100)])
def test_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int, expected: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    (_, line) = on_terminal(monkeypatch, width, event("created", args=("word",) * 100))
    assert len(line) == expected


def test_what_rules_say_stands_first() -> None:
    notes = (Note("it runs as root", "no-root"), Note("m", "harden", "patch"), Note("of a callback"))
    event = replace(make_event("creating", runtime="runc"), policy=notes)
    assert row(event).endswith("  [warn no-root, patch harden, warn of a callback] runc: -")
    denied = replace(event, type="denied", reason=Reason("no", "strict"))
    assert row(denied).endswith("  strict: no")
