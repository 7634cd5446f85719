from __future__ import annotations

import pytest

from startgate.foreign import TEXT
from startgate.runtimes.log import last_error

RUNC = 'time="2026-11-28T15:51:26Z" level=error msg="runc run failed: exec: \\"/nope\\": no such file"\n'


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (RUNC, 'runc run failed: exec: "/nope": no such file'),
        ('time="T" level=warning msg="old"\n', None),
        ('time="T" level=error msg="first"\ntime="T" level=error msg="last"\n', "last"),
        ('time="T" level=error msg="it"\ntime="T" level=debug msg="cleanup"\n', "it"),
        ("time=T level=fatal msg=short\n", "short"),
        (r'level=error msg="a \x00 byte"', r"a \x00 byte"),
        ('{"level":"error","msg":"no such file","time":"T"}\n', "no such file"),
        ('{"msg":"of crun","level":"error"}\n{"level":"debug","msg":"x"}', "of crun"),
        (
            "invalid config file, no 'mounts' block specified\n",
            "invalid config file, no 'mounts' block specified",
        ),
        ('{"msg": 3}\n', None),
        ('{"msg": "cut of', None),
        ("a\x1b[31m colour", "a?[31m colour"),
        ("", None),
        ("\n\n", None),
    ],
)
def test_the_last_error_of_a_log(log: str, error: str | None) -> None:
    assert last_error(log.encode()) == error


def test_a_log_of_bytes() -> None:
    assert last_error(b"not \xff UTF-8") == "not \ufffd UTF-8"
    assert last_error(b"x" * 100_000) == "x" * (TEXT - 1) + "…"
