"""What runtimes understand: the short form of `make command-lines`."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.commandlines.trial import try_lines
from tests.kernel.support import Runtime

LINES, SEED = 30, 7


def test_command_lines_are_read_as_the_runtime_reads_them(runtime: Runtime, tmp_path: Path) -> None:
    trials = list(try_lines(runtime, tmp_path, SEED, LINES))
    assert not [(trial.words, trial.differences) for trial in trials if trial.differences]
    assert sum(trial.seen.did_something for trial in trials) > LINES / 4
