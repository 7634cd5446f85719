"""What `make mutants` tries."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tests.mutants import HEART, PACKAGE, chosen, mutants

SOURCE = '''
LIMIT = 5
def answer(held: bool = True) -> int | None:
    """Say."""
    if held and wanted():
        log.info("one %d", 1)
        return first + 2
    entry.told = tell(1)
    publish(entry)
    return None
'''


def test_what_decides_is_changed() -> None:
    """No limit, no log line, no docstring, no annotation."""
    assert [(mutant.line, mutant.before, mutant.after) for mutant in mutants("a.py", SOURCE)] == [
        (3, "True", "False"),
        (5, "if held and wanted():", "if not (held and wanted()):"),
        (5, "held and wanted()", "held or wanted()"),
        (7, "return first + 2", "return"),
        (7, "first + 2", "first - 2"),
        (7, "2", "3"),
        (8, "entry.told = tell(1)", "pass"),
        (8, "1", "2"),
        (9, "publish(entry)", "pass"),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a == b", "a != b"),
        ("a < b", "a <= b"),
        ("a is None", "a is not None"),
        ("not a", "a"),
        ("a in b", "a not in b"),
    ],
)
def test_a_condition_is_turned_round(before: str, after: str) -> None:
    (mutant,) = mutants("a.py", f"x = y\nwhile {before}:\n    z = y\n")
    assert (mutant.line, mutant.before, mutant.after) == (2, before, after)
    assert ast.unparse(mutant.tree) == textwrap.dedent(f"x = y\nwhile {after}:\n    z = y")


def test_each_is_one_change_that_can_be_compiled() -> None:
    unchanged = ast.unparse(ast.parse(SOURCE))
    texts = [ast.unparse(mutant.tree) for mutant in mutants("a.py", SOURCE)]
    assert len({unchanged, *texts}) == len(texts) + 1
    for mutant in mutants("a.py", SOURCE):
        compile(mutant.tree, "a.py", "exec")


def test_of_many_parameters_some_are_run() -> None:
    names = [f"test_a[{number}]" for number in range(500)] + ["test_b"]
    some = chosen(names, seed=1)
    assert "test_b" in some[:2]
    assert len(some) < len(names)
    assert some == chosen(reversed(names), seed=1)


def test_the_heart_is_where_it_was() -> None:
    assert [file for file in HEART if not (PACKAGE / file).is_file()] == []
