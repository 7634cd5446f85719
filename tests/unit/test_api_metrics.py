from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

pytest.importorskip("prometheus_client")

from startgate.api.metrics import OTHER, RULES, Metrics, missed_deadline, stop_reason
from startgate.events import Event, Exit, Note, Reason
from startgate.inherited.holding import Holding
from startgate.journal.reader import Cursor, Row
from startgate.listeners import lost
from startgate.testing import make_event

PACKAGING = Path(__file__).parents[2] / "packaging"
HOLDS = Holding(pid=os.getpid(), start_time=1, since="", workers=3, runtimes=("/usr/bin/runc",))


def text_of(*events: Event, now: float = 12.0) -> str:
    metrics = Metrics(now=lambda: now)
    metrics.count(Row("", 1, 10**10, event.type, event.to_json(), Cursor("x", 1)) for event in events)
    return metrics.text([HOLDS], 1000, 2).decode()


def value(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_what_is_counted() -> None:
    undecided = Note("it can't be decided", rule="r2", action="error")
    denied = replace(make_event("denied"), reason=Reason("no", "no-privileged"), held_us=3000)
    text = text_of(
        replace(make_event("created", engine="docker"), held_us=1500, policy=(undecided,)),
        make_event("created", engine=None),
        make_event("stopped", exit=Exit(code=1)),
        denied,
        make_event("oom"),
        lost("3 events were dropped"),
    )
    assert value(text, 'startgate_starts_total{engine="docker"}') == 1
    assert value(text, 'startgate_starts_total{engine="none"}') == 1
    assert value(text, 'startgate_stops_total{reason="error"}') == 1
    assert value(text, 'startgate_denials_total{rule="no-privileged"}') == 1
    assert value(text, 'startgate_undecided_total{rule="r2"}') == 1
    assert value(text, 'startgate_held_seconds_bucket{gate="pidfile",le="0.002"}') == 1
    assert value(text, "startgate_lost_total") == 1
    assert value(text, "startgate_oom_kills_total") == 1
    assert value(text, "startgate_journal_lag_seconds") == 2
    assert value(text, "startgate_worker_restarts") == 2
    assert value(text, "startgate_holds") == 1
    assert value(text, 'startgate_process_resident_bytes{process="worker"}') > 1 << 20


def test_labels_are_bounded() -> None:
    """Whoever names rules, or containers, can't fill anybody's memory."""
    events = (
        replace(make_event("denied"), reason=Reason("no", f"rule-{number}")) for number in range(RULES + 50)
    )
    text = text_of(*events)
    assert text.count("startgate_denials_total{") == RULES + 1
    assert value(text, f'startgate_denials_total{{rule="{OTHER}"}}') == 50


def test_there_are_few_metrics() -> None:
    assert len(re.findall(r"^# TYPE ", text_of(), re.MULTILINE)) <= 25


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (make_event("stopped", exit=Exit(code=0)), "ok"),
        (make_event("stopped", exit=Exit(code=3)), "error"),
        (make_event("stopped", exit=Exit(signal=9)), "signal"),
        (make_event("stopped", exit=Exit(signal=9, oom_killed=True)), "oom"),
        (make_event("stopped", exit=Exit()), "unknown"),
        (
            replace(make_event("stopped", exit=Exit()), reason=Reason("the start failed: runc ended")),
            "failed-start",
        ),
    ],
)
def test_how_it_ended(event: Event, reason: str) -> None:
    assert stop_reason(event) == reason


def test_deadlines_that_passed() -> None:
    """The sentences are those of passage.py and gates/context.py."""
    created = make_event("created")
    late = "the deadline of 2.0 s passed before this was done: allowed"
    assert missed_deadline(created) is None
    assert missed_deadline(replace(created, reason=Reason(late))) == "allowed"
    refused = Reason("the deadline of 2.0 s passed before this was done: denied")
    assert missed_deadline(replace(make_event("denied"), reason=refused)) == "denied"
    assert missed_deadline(lost("a task was let go after 2.0 s, unexamined")) == "allowed"


def names_in(text: str) -> set[str]:
    return {re.sub(r"_(bucket|total)$", "", name) for name in re.findall(r"startgate_\w+", text)}


@pytest.mark.parametrize("file", ["grafana/startgate.json", "prometheus/startgate.rules.yml"])
def test_dashboard_and_alerts_ask_for_what_there_is(file: str) -> None:
    told = names_in("".join(re.findall(r"^# TYPE .*$", text_of(), re.MULTILINE)))
    assert names_in((PACKAGING / file).read_text()) <= told


def test_the_dashboard() -> None:
    dashboard: dict[str, Any] = json.loads((PACKAGING / "grafana/startgate.json").read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) > 10
