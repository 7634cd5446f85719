"""What writes tables of the documentation from the reports of tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element


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
