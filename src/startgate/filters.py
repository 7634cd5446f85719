"""Filters in CEL, the Common Expression Language, over an event as its JSON shows it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from startgate.errors import UsageError
from startgate.events import Event
from startgate.policy.cel import EvaluationError, ExpressionError, asked_by, compile_expression

if TYPE_CHECKING:
    from startgate.policy.engine import Expression

log = logging.getLogger(__name__)


class Filter:
    """An expression that an event matches or not. Any thread may ask it."""

    def __init__(self, compiled: Expression) -> None:
        self._compiled = compiled
        self._asked = asked_by([compiled])

    @property
    def asks_for_actual(self) -> bool:
        """Does it ask for what the kernel says of the container?"""
        return self._compiled.references.ask_for("container", "actual")

    def asks_only_for(self, name: str) -> bool:
        """Does it ask for what is in this field of the event, and for nothing else?

        Of an event that lacks the field it is not true, then.
        """
        asked = self._compiled.references
        return asked.fields.keys() == {name} and not asked.compared_with_null

    def asked_of(self, name: str) -> frozenset[str] | None:
        """Return what it asks for of this field of the event; None: all of it."""
        asked = self._compiled.references.fields.get(name, set())
        return None if asked is None else frozenset(asked)

    def __call__(self, event: Event) -> bool:
        """Does the event match? One that lacks what the expression asks for does not."""
        try:
            self._compiled.check_cost(event)
        except EvaluationError as error:
            log.warning("the filter can't be asked: %s", error)
            return False
        try:
            return bool(self._compiled.evaluate(self._asked.context(event)))
        except EvaluationError as error:
            log.debug("the filter fails on %s: %s", event.type, error)
            return False


def compile_filter(expression: str) -> Filter:
    """Compile a CEL expression over `type`, `gate`, `container`, `process`, `exit`, ...

    Raises UsageError when it does not compile, or the CEL library is missing.
    """
    try:
        return Filter(compile_expression(expression, Event.__struct_encode_fields__))
    except ExpressionError as error:
        place = f"{error.line}:{error.column}"
        raise UsageError(f"the filter does not compile, at {place}: {error}") from error
