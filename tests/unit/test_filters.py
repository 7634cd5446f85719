from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from startgate.errors import UsageError
from startgate.events import Event, Exit, Process
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


@pytest.mark.parametrize("expression", ["type", "1", '"true"', "container", "container.pid", "[true]"])
def test_only_true_is_a_match(expression: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not compile_filter(expression)(CREATED)
    assert "the filter is neither true nor false: " in caplog.text


@pytest.mark.parametrize("expression", ["false", "container.image", "exit.code == 3"])
def test_what_is_false_or_unknown_is_no_mistake(expression: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not compile_filter(expression)(CREATED)
    assert not caplog.text


@pytest.mark.parametrize("expression", ["", "type ==", "(((", "type = 'created'", "'", "\0", "9" * 30])
def test_a_filter_that_does_not_compile(expression: str) -> None:
    with pytest.raises(UsageError, match="the filter does not compile"):
        compile_filter(expression)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("nope", "1:1: unknown name nope"),
        ("tpye == 'created'", "unknown name tpye: did you mean type?"),
        ("nope.x == 1", "unknown name nope"),
        ("nope(type)", "unknown function nope"),
        ("type == nope", "1:9: unknown name nope"),
        ('container.nam == "x"', "unknown field of container nam: did you mean name?"),
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
        if name == "cel":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_cel)
    with pytest.raises(UsageError, match=r"filters need the CEL library: pip install 'startgate"):
        compile_filter("true")


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
