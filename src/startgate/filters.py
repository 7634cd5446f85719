"""Filters in CEL, the Common Expression Language, over an event as its JSON shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from startgate.errors import UsageError
from startgate.events import Event
from startgate.policy.cel import EvaluationError, ExpressionError, asked_by, compile_expression

log = logging.getLogger(__name__)


def compile_filter(expression: str) -> Callable[[Event], bool]:
    """Compile a CEL expression over `type`, `gate`, `container`, `process`, `exit`, ...

    The result tells whether an event matches; one that lacks what the expression asks for
    does not. Raises UsageError when it does not compile, or the CEL library is missing.
    """
    try:
        compiled = compile_expression(expression, Event.__struct_encode_fields__)
    except ExpressionError as error:
        place = f"{error.line}:{error.column}"
        raise UsageError(f"the filter does not compile, at {place}: {error}") from error
    asked = asked_by([compiled])

    def matches(event: Event) -> bool:
        try:
            compiled.check_cost(event)
        except EvaluationError as error:
            log.warning("the filter can't be asked: %s", error)
            return False
        try:
            return bool(compiled.evaluate(asked.context(event)))
        except EvaluationError as error:
            log.debug("the filter fails on %s: %s", event.type, error)
            return False

    return matches
