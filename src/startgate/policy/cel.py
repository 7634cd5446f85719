"""Expressions in CEL, the Common Expression Language: what rules and filters see of it.

The library is loaded with the first expression: it takes 40 ms and 16 MB, and is an extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from startgate.errors import INSTALL_POLICY, UsageError

if TYPE_CHECKING:
    from startgate.policy.engine import Asked, Expression

RULE_NAMES = ("type", "gate", "container", "process")
"""What a rule may ask for: the names of the event's JSON."""

Result = Literal["bool", "string"]


class ExpressionError(UsageError):
    """An expression does not compile: `line` and `column` within it, both from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class EvaluationError(Exception):
    """An expression has no value for an event: something that it asks for is not there, or too large."""


def compile_expression(source: str, names: Sequence[str], result: Result = "bool") -> Expression:
    """Check and compile. `names` are those of the event that it may ask for; `result`: what it has to give.

    Raises ExpressionError, or UsageError where the library is missing.
    """
    try:
        from startgate.policy import engine  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(f"rules and filters need CEL's library: {INSTALL_POLICY}") from error
    return engine.Expression(source, names, result)


def asked_by(expressions: Sequence[Expression]) -> Asked:
    """Return what the expressions ask for, all together."""
    from startgate.policy import engine  # noqa: PLC0415  (it is loaded already)

    return engine.Asked(expressions)
