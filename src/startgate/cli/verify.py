"""`verify`: what was found, in sentences or as JSON."""

from __future__ import annotations

import sys

import msgspec

from startgate.errors import UsageError
from startgate.foreign import one_line
from startgate.journal.database import JournalError
from startgate.journal.report import Head, Report
from startgate.journal.verify import Verifier


def show(directory: str, spool: str, head: str | None, output: str) -> bool:
    """Verify, and tell of it; is all well? Raises UsageError, also where there is no journal."""
    progress = _progress if sys.stderr.isatty() else lambda done, of: None
    try:
        report = Verifier(directory, spool=spool, head=_head(head), progress=progress).run()
    except JournalError as error:  # neither complete nor not: exit code 2
        raise UsageError(str(error)) from error
    if output == "json":
        document = {"complete": report.complete} | msgspec.to_builtins(report)
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{one_line(sentence)}\n" for sentence in _sentences(report)))
    return report.complete


def _head(text: str | None) -> Head | None:
    try:
        return Head.parse(text) if text else None
    except ValueError as error:
        raise UsageError(f"--head: {text!r} is not what verify prints, ROW:HASH") from error


def _sentences(report: Report) -> list[str]:
    found = report.findings
    sentences = [*found, *(f"note: {note}" for note in report.notes)]
    if report.dropped:
        sentences.append(
            f"note: {report.dropped} lines were dropped before the journal, and are told as lost"
        )
    if report.counted:
        executed, events = report.executed, report.events
        sentences.append(
            f"BPF counted {executed.start} starts and {executed.exec} execs by root, until "
            f"{report.counted_until}; gates held, and told, {events.start} and {events.exec} by now; "
            f"no gate saw {report.unseen}, and {report.told} are told as such"
        )
    verdict = "complete" if report.complete else f"NOT complete: {len(found)} findings"
    return [*sentences, f"{verdict}; {report.rows} rows, head {report.head}"]


def _progress(done: int, of: int) -> None:
    sys.stderr.write(f"\r{done * 100 // max(of, 1):3} %" + ("\r" if done >= of else ""))
    sys.stderr.flush()
