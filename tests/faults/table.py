"""Writes the table of docs/daemon.md from the report of `make faults`.

``python -m tests.faults.table build/faults.xml``
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/daemon.md"
MARKERS = ("<!-- faults: written by `make faults-table` -->", "<!-- /faults -->")
COLUMNS = {
    "fault": "fault",
    "started": "started",
    "held": "held",
    "missed": "missed",
    "longest": "longest delay",
    "note": "",
}


def main(report: Path) -> int:
    """Write the document; refuse if a test failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    if failed := [case.get("name") for case in cases if {"failure", "error"} & {c.tag for c in case}]:
        print(f"{report}: {len(failed)} tests failed, {failed[0]} first: no table is written from them")
        return 1
    before, rest = DOCUMENT.read_text().split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    DOCUMENT.write_text(f"{before}{MARKERS[0]}\n{table(cases)}\n{MARKERS[1]}{after}")
    return 0


def table(cases: list[ElementTree.Element]) -> str:
    """Return the table in Markdown: a row for each fault."""
    told = [{p.get("name", ""): p.get("value", "") for p in case.iter("property")} for case in cases]
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row[column] for column in COLUMNS) + " |" for row in told if "fault" in row]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
