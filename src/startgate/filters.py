"""Filters in CEL, the Common Expression Language, over an event as its JSON shows it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from startgate.errors import UsageError
from startgate.events import Container, Event, Exit, Process, Reason, timestamp
from startgate.policy import cost
from startgate.policy.cel import LONGEST
from startgate.policy.names import references

log = logging.getLogger(__name__)

# The functions of the CEL specification that are called with their argument in parentheses.
_FUNCTIONS = frozenset(
    "size int uint double string bytes bool timestamp duration type dyn has matches min max".split()
)
_EXAMPLE = Event(
    type="stopped",
    time=timestamp(0),
    held_us=1,
    gate="command",
    container=Container(id="example", name="example", pid=1),
    process=Process(argv=("true",)),
    exit=Exit(code=0, signal=0),
    reason=Reason("example"),
)
_NAMES = ("type", "time", "held_us", "gate", "container", "process", "exit", "reason")


def compile_filter(expression: str) -> Callable[[Event], bool]:
    """Compile a CEL expression over `type`, `gate`, `container`, `process`, `exit`, ...

    The result tells whether an event matches; one that lacks what the expression asks for
    does not. Raises UsageError when it does not compile, or the CEL library is missing.
    """
    try:
        import cel  # noqa: PLC0415  (0.2 s: only for those who filter)
    except ImportError as error:
        raise UsageError("filters need the CEL library: pip install 'startgate[filter]'") from error
    if len(expression) > LONGEST:
        raise UsageError(f"the filter is longer than {LONGEST} characters")
    try:
        program = cel.compile(expression)
    except Exception as error:  # the library raises ValueError and its own
        raise UsageError(f"the filter does not compile: {error}") from error

    _refuse_unknown_names(program.execute, expression)

    asked = references(expression)

    def matches(event: Event) -> bool:
        if why := cost.excess(event, asked.degree, asked.fields):
            log.warning("the filter can't be asked: %s", why)
            return False
        names = dict.fromkeys(_NAMES) | event.to_dict()
        try:
            return program.execute(names) is True
        except Exception as error:
            log.debug("the filter fails on %s: %s", event.type, error)
            return False

    return matches


def _refuse_unknown_names(execute: Callable[[dict[str, object]], object], expression: str) -> None:
    """The library finds an unknown name when it evaluates only: evaluate once, on an example.

    It says the same of a known function whose argument is null: that depends on the event.
    """
    example: dict[str, object] = dict.fromkeys(_NAMES) | _EXAMPLE.to_dict()
    try:
        execute(example)
    except RuntimeError as error:
        name = re.search(r"Undefined [^']*'([^']*)'", str(error))
        if name and name[1] not in _FUNCTIONS and re.search(rf"(?<![.\w]){re.escape(name[1])}\b", expression):
            raise UsageError(f"the filter uses an unknown name: {name[1]}") from error
    except Exception as error:
        log.debug("the filter on an example: %s", error)
