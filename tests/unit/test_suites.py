"""What `make test-suites` compares."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.suites.bats import asked_for, recorder, results_of


def test_results() -> None:
    said = (
        "1..4\r\nok 1 runc create\r\nnot ok 2 runc run [x]\r\n# ok 3 no\r\nok 3 runc ps # skip root only\r\n"
    )
    assert results_of(said) == {"runc create": "ok", "runc run [x]": "not ok", "runc ps": "skipped"}


def test_the_recorder_is_the_runtime_and_keeps_each_word(tmp_path: Path) -> None:
    path = recorder(tmp_path / "record", Path("/bin/echo"))
    for words in (["run", "-b", "a b", "one"], ["exec", "one", "sh", "-c", "run x"], ["exec", "one", "x"]):
        done = subprocess.run([path, *words], capture_output=True, text=True, check=True)
        assert done.stdout.split() == " ".join(words).split()
    starts, execs = asked_for((path.parent / "commands").read_text())
    assert (starts, execs) == ({"one": 1}, {"one": 2})
