"""Filters in CEL, the Common Expression Language, over an event as its JSON shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from startgate.errors import UsageError
from startgate.events import Event

log = logging.getLogger(__name__)

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
    try:
        program = cel.compile(expression)
    except Exception as error:  # the library raises ValueError and its own
        raise UsageError(f"the filter does not compile: {error}") from error

    try:
        program.execute(dict.fromkeys(_NAMES))
    except RuntimeError as error:  # so it says "undefined"; other errors depend on the event
        raise UsageError(f"the filter uses an unknown name: {error}") from error
    except Exception as error:
        log.debug("the filter on an empty event: %s", error)

    def matches(event: Event) -> bool:
        names = dict.fromkeys(_NAMES) | event.to_dict()
        try:
            return program.execute(names) is True
        except Exception as error:
            log.debug("the filter fails on %s: %s", event.type, error)
            return False

    return matches
