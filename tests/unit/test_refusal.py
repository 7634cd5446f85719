from __future__ import annotations

import json
import re

import pytest

from startgate.gates.refusal import line
from startgate.listeners import Deny


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Deny("privileged", "no-privileged"), "startgate: denied by rule no-privileged: privileged"),
        (Deny('a "quoted"\nreason'), 'startgate: denied: a "quoted"\nreason'),
        (Deny("no UTF-8: \udcff"), "startgate: denied: no UTF-8: \ufffd"),
    ],
)
def test_json(verdict: Deny, message: str) -> None:
    """As logrus writes it: one object a line."""
    text = line(verdict, "json")
    told = json.loads(text)
    assert text.endswith(b"\n") and text.count(b"\n") == 1
    assert (told["level"], told["msg"], sorted(told)) == ("error", message, ["level", "msg", "time"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", told["time"])


@pytest.mark.parametrize("log_format", [None, "text", ""])
def test_text(log_format: str | None) -> None:
    text = line(Deny('a "reason"\nof two lines é'), log_format).decode()
    told = re.fullmatch(r'time="\S+" level=error msg=(".*")\n', text)
    assert told and json.loads(told[1]) == 'startgate: denied: a "reason"\nof two lines é'


def test_a_long_one_is_cut() -> None:
    assert len(line(Deny("x" * 1_000_000), "json")) < 5000
