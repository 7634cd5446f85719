"""What writes tables of the documentation from the reports of tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def write(report: Path, document: Path, name: str, columns: Mapping[str, str]) -> int:
    """Write the table NAME of the properties that tests recorded, a row for each test that has the first one;
    return the exit status: 1 if a test failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not passed(cases):
        return 1
    told = [{p.get("name", ""): p.get("value", "") for p in case.iter("property")} for case in cases]
    cells = ([row[column] for column in columns] for row in told if next(iter(columns)) in row)
    put(document, name, f"{name}-table", "\n".join(rows(columns.values(), cells)))
    return 0


def passed(cases: Iterable[Element]) -> bool:
    """Did no test fail? Else say so: no table is written from such a report."""
    failed = [case.get("name") for case in cases if {"failure", "error"} & {child.tag for child in case}]
    if failed:
        print(f"{len(failed)} tests failed, {failed[0]} first: no table is written from them")
    return not failed


def rows(columns: Iterable[str], cells: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    columns = list(columns)
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in cells:
        yield f"| {' | '.join(row)} |"


def put(document: Path, name: str, target: str, text: str) -> None:
    """Replace what stands between the markers of that name, written by `make TARGET`."""
    begin, end = f"<!-- {name}: written by `make {target}` -->", f"<!-- /{name} -->"
    before, rest = document.read_text().split(begin)
    after = rest.split(end)[1]
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")
