"""Writes the table of docs/daemon.md from the report of `make faults`.

``python -m tests.faults.table build/faults.xml``
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

from tests import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/daemon.md"
COLUMNS = {
    "fault": "fault",
    "started": "started",
    "held": "held",
    "missed": "missed",
    "longest": "longest delay",
    "version": "of `runc --version`",
    "note": "",
}


def main(report: Path) -> int:
    """Write the document; refuse if a test failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not tables.passed(cases):
        return 1
    tables.put(DOCUMENT, "faults", "faults-table", table(cases))
    return 0


def table(cases: list[ElementTree.Element]) -> str:
    """Return the table in Markdown: a row for each fault."""
    told = [{p.get("name", ""): p.get("value", "") for p in case.iter("property")} for case in cases]
    faults = ([row[column] for column in COLUMNS] for row in told if "fault" in row)
    return "\n".join(tables.rows(COLUMNS.values(), faults))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
