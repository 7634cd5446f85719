from __future__ import annotations

import pytest

from startgate.policy.names import references


@pytest.mark.parametrize(
    ("expression", "variables", "fields"),
    [
        ("container.privileged", {"container"}, {"container": {"privileged"}}),
        ("container", {"container"}, {"container": None}),
        (
            "container.id == x && container == y",
            {"container", "x", "y"},
            {"container": None, "x": None, "y": None},
        ),
        (
            "container.mounts.exists(m, m.source == s)",
            {"container", "s"},
            {"container": {"mounts"}, "s": None},
        ),
        ('container["id"]', {"container"}, {"container": None}),
        ("has(container.kubernetes.pod)", {"container"}, {"container": {"kubernetes"}}),
        ("true || null == false && 1 in [2u, 0x1f, 1.5e3]", set(), {}),
        ("'a.b' == \"c.d\" || r'\\' == '\\'x' // y", {"x"} - {"x"}, {}),
        ('"""a "b" c""" == d', {"d"}, {"d": None}),
        ("math.abs(-1) == a.b.c", {"a"}, {"a": {"b"}}),
        ("container . id", {"container"}, {"container": {"id"}}),
        ("size(container.args)", {"container"}, {"container": {"args"}}),
    ],
)
def test_variables_and_fields(
    expression: str, variables: set[str], fields: dict[str, set[str] | None]
) -> None:
    found = references(expression)
    assert found.variables == variables
    assert found.fields == fields


def test_functions() -> None:
    found = references(
        "size(a) > 1 && a.startsWith('(') && sets.contains(b, c) && b.exists(x, x.trim() == '')"
    )
    assert found.functions == {"size", "startsWith", "sets.contains", "exists", "trim"}


@pytest.mark.parametrize(
    "text", ["", "'", '"""', "((((", "a..b", ".a", "a.", "exists(a,", "\x00", "a.exists(", "é"]
)
def test_nothing_makes_it_fail(text: str) -> None:
    references(text)


@pytest.mark.parametrize(
    ("expression", "degree"),
    [
        ("container.privileged", 0),
        ('container.args.exists(a, a == "x")', 1),
        ('container.args.exists(a, a in ["x"]) && container.args.all(b, size(b) < (3))', 1),
        ("container.mounts.exists(m, m.options.exists(o, o == 'rw'))", 2),
        ("container.labels.exists(k, container.labels[k] == 'x')", 2),
        ("container.args.exists(a, a in container.args)", 2),
        ("container.args.filter(a, a != '').size() > 3", 2),
        ("container.args.exists(a, container.args.exists(b, container.args[0] == a + b))", 3),
        ("container.args.exists(a, a.container == 'x')", 1),
    ],
)
def test_how_the_time_grows(expression: str, degree: int) -> None:
    assert references(expression).degree == degree
