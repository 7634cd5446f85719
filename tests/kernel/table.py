"""Writes the table of docs/policy.md from the report of tests/kernel/test_around.py.

``python -m tests.kernel.table build/around.xml``
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

from tests import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/policy.md"
COLUMNS = {
    "asked": "what config.json asks for",
    "built": "what the kernel built",
    "early": "seen at `creating`",
    "late": "at `created`, by `container.actual`",
    "differs": "`differs`",
}


def main(report: Path) -> int:
    """Write the document; refuse if a test failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not tables.passed(cases):
        return 1
    told = [{p.get("name", ""): p.get("value", "") for p in case.iter("property")} for case in cases]
    ways = ([row[column] for column in COLUMNS] for row in told if "asked" in row)
    tables.put(DOCUMENT, "around", "around-table", "\n".join(tables.rows(COLUMNS.values(), ways)))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
