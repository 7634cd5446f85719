from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from startgate import policy
from startgate.errors import UsageError
from startgate.events import Event, Exit, Note, Process
from startgate.filters import compile_filter
from startgate.listeners import lost
from startgate.testing import make_event

CREATED = make_event("created", name="web", labels={"app": "shop"}, args=("nginx", "-g"), privileged=True)
STOPPED = make_event("stopped", exit=Exit(code=3))
EXEC = replace(make_event("exec"), process=Process(argv=("sh", "-c"), user="0:0"), held_us=1500)


@pytest.mark.parametrize(
    ("expression", "event"),
    [
        ('type == "created"', CREATED),
        ('type in ["created", "stopped"]', STOPPED),
        ('gate == "pidfile" && container.privileged', CREATED),
        ('container.name == "web"', CREATED),
        ('container.name.startsWith("w")', CREATED),
        ('container.name.matches("^w.b$")', CREATED),
        ('container.labels.app == "shop"', CREATED),
        ('container.labels["app"] == "shop"', CREATED),
        ('"app" in container.labels', CREATED),
        ("container.pid == 4242", CREATED),
        ('container.args.exists(word, word == "-g")', CREATED),
        ('container.args[0] == "nginx" && size(container.args) == 2', CREATED),
        ("container.image == null", CREATED),
        ("exit.code == 3", STOPPED),
        ("exit.code != 0", STOPPED),
        ("exit.signal == null", STOPPED),
        ('process.argv[0] == "sh"', EXEC),
        ("held_us > 1000", EXEC),
        ('type == "lost" && container == null', lost("x")),
        ('reason.message == "x"', lost("x")),
        ('!(type == "exec")', CREATED),
        ("true", CREATED),
    ],
)
def test_an_event_that_matches(expression: str, event: Event) -> None:
    assert compile_filter(expression)(event)


@pytest.mark.parametrize(
    ("expression", "event"),
    [
        ('type == "stopped"', CREATED),
        ("container.privileged", STOPPED),
        ('container.name == "other"', CREATED),
        ("exit.code == 0", STOPPED),
        ("false", CREATED),
    ],
)
def test_an_event_that_does_not(expression: str, event: Event) -> None:
    assert not compile_filter(expression)(event)


@pytest.mark.parametrize(
    ("expression", "event"),
    [
        ("exit.code == 3", CREATED),
        ("exit.code != 3", CREATED),
        ('process.argv[0] == "sh"', CREATED),
        ('container.name == "web"', lost("x")),
        ('container.labels.nope == "x"', CREATED),
        ("held_us > 1", CREATED),
        ("container.args[7] == container.id", CREATED),
        ('container.image.startsWith("docker.io")', CREATED),
    ],
)
def test_an_event_that_lacks_what_is_asked_for_does_not_match(expression: str, event: Event) -> None:
    assert not compile_filter(expression)(event)


@pytest.mark.parametrize(
    ("expression", "given"),
    [
        ("type", "string"),
        ("1", "int"),
        ('"true"', "string"),
        ("container", "container"),
        ("container.pid", "int"),
        ("[true]", "list<bool>"),
        ("dyn(true)", "dyn"),
    ],
)
def test_what_is_neither_true_nor_false_is_no_filter(expression: str, given: str) -> None:
    with pytest.raises(UsageError, match=f"it has to give true or false, and gives {given}"):
        compile_filter(expression)


def test_a_truth_value_that_is_not_known_is_no_match() -> None:
    killed = replace(STOPPED, exit=Exit(signal=9))
    assert not compile_filter("exit.oom_killed")(killed)
    assert not compile_filter("!exit.oom_killed")(killed)
    assert compile_filter("exit.oom_killed")(replace(STOPPED, exit=Exit(signal=9, oom_killed=True)))
    assert compile_filter("exit.oom_killed == null && exit.code == null && exit.signal != null")(killed)


def test_many_values_that_are_null() -> None:
    """The library's references to None are miscounted: a few hundred nulls would end the process."""
    before = sys.getrefcount(None)
    missing = compile_filter("container.pid == null || exit.oom_killed || container.image == null")
    nothing = make_event("stopped", pid=None, exit=Exit())
    assert all(missing(nothing) for _ in range(5000))
    unknown = compile_filter("exit.oom_killed")
    assert not any(unknown(nothing) for _ in range(5000))
    assert sys.getrefcount(None) > before - 500


def test_what_rules_said() -> None:
    noted = replace(CREATED, policy=(Note("m", "r", "warn", ({"op": "add"},)),))
    assert compile_filter('policy.exists(n, n.action == "warn" && n.rule == "r")')(noted)
    assert not compile_filter('policy.exists(n, n.action == "warn")')(CREATED)


@pytest.mark.parametrize("expression", ["", "type ==", "(((", "type = 'created'", "'", "\0", "9" * 30])
def test_a_filter_that_does_not_compile(expression: str) -> None:
    with pytest.raises(UsageError, match="the filter does not compile"):
        compile_filter(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nope", "1:1: unknown name nope"),
        ("nope.x.y == 1", "1:1: unknown name nope"),
        ("tpye == 'created'", "unknown name tpye: did you mean type?"),
        ("nope.x == 1", "unknown name nope"),
        ("nope(type)", "unknown function nope"),
        ("type == nope", "1:9: unknown name nope"),
        ('container.nam == "x"', "1:11: unknown field of container nam: did you mean name?"),
        ('type == "x" ||\n  container.pidd == 1', "2:13: unknown field of container pidd: did you mean pid?"),
        ('"é" == container.imagee', "1:18: unknown field of container imagee"),
        ("exit.cod == 1", "unknown field of exit cod: did you mean code?"),
        ("reason.rul == null", "did you mean rule?"),
    ],
)
def test_a_filter_with_an_unknown_name(expression: str, said: str) -> None:
    with pytest.raises(UsageError, match="the filter does not compile, at ") as error:
        compile_filter(expression)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "expression",
    [
        'type.startsWith("cre")',
        'type.matches("cre.*")',
        'gate.endsWith("file")',
        "size(type) == 7",
        'timestamp(time) > timestamp("2020-01-01T00:00:00Z")',
    ],
)
def test_functions_of_a_top_level_name(expression: str) -> None:
    assert compile_filter(expression)(CREATED)


def test_the_library_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_cel(name: str, *arguments: Any) -> Any:
        if name.startswith("cel_expr_python"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.delitem(sys.modules, "startgate.policy.engine", raising=False)
    monkeypatch.delattr(policy, "engine", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_cel)
    with pytest.raises(
        UsageError, match=r"filters need CEL's library: pip install '\.\[policy\]' in startgate's"
    ):
        compile_filter("true")


def test_what_is_imported_without_a_filter() -> None:
    """The library takes time and memory: not for those who don't need it."""
    heavy = "{'cel_expr_python', 'google.protobuf'}"
    code = f"import sys, startgate.cli.watch; sys.exit(str({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"


@given(st.text(max_size=20) | st.text(alphabet="type.=\"'()[]!&|1x ", max_size=20))
def test_any_text_is_a_filter_or_a_usage_error(expression: str) -> None:
    try:
        matches = compile_filter(expression)
    except UsageError:
        return
    assert matches(CREATED) in (True, False)


def test_one_that_is_too_long() -> None:
    """The library's parser recurses, to the end of the stack."""
    with pytest.raises(UsageError, match="longer than 4096 characters"):
        compile_filter("container" + ".b" * 20_000)
