"""Writes the tables of docs/engines.md from the reports of `make engines` and `make test-newest`.

``python -m tests.engines.table build/engines.xml build/newest.xml``
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from tests import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/engines.md"
COLUMNS = {
    "way": "way to start",
    "held": "held",
    "name": "name",
    "image": "image",
    "labels": "labels",
    "pod": "pod",
    "exit_code": "exit code",
    "latency_ms": "stop told after, ms",
}

Row = dict[str, object]


def main(reports: Iterable[str]) -> int:
    """Write the document; refuse if a test failed."""
    root = ElementTree.Element("reports")
    root.extend([case for report in reports for case in of_engines(Path(report))])
    if not tables.passed(root):
        return 1
    rows = [json.loads(value) for value in properties(root, "way")]
    text = "\n\n".join([*ways(rows), *latencies(rows), *loads(root), *missing(root)])
    tables.put(DOCUMENT, "engines", "engines-table", text)
    return 0


def of_engines(report: Path) -> list[ElementTree.Element]:
    """Return the tests of engines in a report: `make test-newest` runs kernel tests, too."""
    cases = ElementTree.parse(report).iter("testcase")
    return [case for case in cases if case.get("classname", "").startswith("tests.engines.")]


def properties(root: ElementTree.Element, name: str) -> list[str]:
    """Return what the tests recorded under a name."""
    return [found.get("value", "") for found in root.iter("property") if found.get("name") == name]


def ways(rows: Iterable[Row]) -> Iterable[str]:
    """Return a table for each engine, in the order of the tests."""
    engines: dict[object, list[Row]] = {}
    for row in rows:
        engines.setdefault(row["engine"], []).append(row)
    for engine in sorted(engines, key=str):
        cells = ([cell(row[column]) for column in COLUMNS] for row in engines[engine])
        yield "\n".join([f"### {engine}", "", *tables.rows(COLUMNS.values(), cells)])


def cell(value: object) -> str:
    """Return a cell: `-` is what the engine itself does not know, or the test can't measure."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return str(value)


def latencies(rows: Iterable[Row]) -> Iterable[str]:
    """Return the middle of all stop latencies: single ones show how busy the machine was."""
    if known := [float(str(row["latency_ms"])) for row in rows if row["latency_ms"] is not None]:
        median = f"median {statistics.median(known):.1f} ms, longest {max(known):.1f} ms"
        yield f"### Stops\n\n- Of the {len(known)} containers above that could say when they ended: {median}."


def loads(root: ElementTree.Element) -> Iterable[str]:
    """Return what the load tests measured."""
    if told := properties(root, "load"):
        yield "### Under load\n\n" + "\n".join(f"- {line}." for line in told)


def missing(root: ElementTree.Element) -> Iterable[str]:
    """Return how many tests did not run, and why."""
    reasons: Counter[tuple[str, str]] = Counter()
    for case in root.iter("testcase"):
        module = case.get("classname", "").rpartition(".")[2]
        reasons.update((module, skipped.get("message", "")) for skipped in case.iter("skipped"))
    if reasons:
        lines = (f"- {count} of `{module}`: {reason}." for (module, reason), count in reasons.items())
        yield "### Not run\n\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
