"""Expressions in CEL, the Common Expression Language: compiled once, evaluated on many threads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from startgate.errors import UsageError
from startgate.events import Container, Event, Exit, Process, Reason
from startgate.policy import cost
from startgate.policy.names import References, references

NAMES = ("type", "gate", "container", "process")
"""What a rule may ask for: the names of the event's JSON."""

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "container": Container.__struct_fields__,
    "process": Process.__struct_fields__,
    "exit": Exit.__struct_fields__,
    "reason": Reason.__struct_fields__,
}
# Of the CEL specification; the library's further ones are told by itself.
_FUNCTIONS = frozenset(
    "size int uint double string bytes bool timestamp duration type dyn has matches min max contains "
    "startsWith endsWith all exists exists_one map filter getFullYear getMonth getDayOfYear "
    "getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds getMilliseconds optional".split()
)


LONGEST = 4096
"""Characters of an expression. The library's parser recurses: 40,000 end the process (a segfault)."""


class ExpressionError(UsageError):
    """An expression does not compile: `line` and `column` within it, both from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class Expression:
    """One compiled expression."""

    def __init__(self, source: str, names: Sequence[str] = NAMES) -> None:
        """`names` are those of the event that it may ask for.

        Raises ExpressionError, or UsageError where the CEL library is missing.
        """
        self.source = source
        if len(source) > LONGEST:
            raise ExpressionError(f"longer than {LONGEST} characters")
        try:
            self._program = _library().compile(source)
        except ValueError as error:
            raise _located(str(error)) from error
        self.references: References = references(source)
        _check_names(self.references, source, names)

    def check_cost(self, event: Event) -> None:
        """Raises EvaluationError: the event is so large that evaluating would keep all others waiting."""
        if why := cost.excess(event, self.references.degree, self.references.fields):
            raise EvaluationError(why)

    def evaluate(self, context: Any) -> Any:
        """Return the value. Raises EvaluationError, which says why there is none."""
        try:
            return self._program.execute(context)
        except KeyError as error:
            raise EvaluationError(f"there is no {error}") from error
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise EvaluationError(_first_sentence(str(error))) from error


class EvaluationError(Exception):
    """An expression has no value for an event: something that it asks for is not there."""


class Asked(NamedTuple):
    """What some expressions ask for, all together."""

    fields: dict[str, frozenset[str] | None]
    """By the name; None: all of its fields."""
    functions: dict[str, Any]
    """Those of the library that the CEL specification does not have."""


def context(event: Event, asked: Asked) -> Any:
    """Return what expressions are evaluated on: only `asked`, as converting costs most of the time.

    Raises EvaluationError.
    """
    values = {name: _value(getattr(event, name), fields) for name, fields in asked.fields.items()}
    try:
        built = _library().Context(values)
        for name, function in asked.functions.items():
            built.add_function(name, function)
    except Exception as error:  # the library takes no lone surrogates, for one
        raise EvaluationError(_first_sentence(str(error))) from error
    return built


def asked_by(expressions: Sequence[Expression]) -> Asked:
    """Return what the expressions ask for."""
    asked: dict[str, frozenset[str] | None] = {}
    functions = frozenset[str]().union(*(each.references.functions for each in expressions))
    for expression in expressions:
        for name, fields in expression.references.fields.items():
            before = asked.get(name, frozenset())
            asked[name] = None if fields is None or before is None else before | fields
    return Asked(asked, {name: f for name, f in _extensions().items() if name in functions})


def _value(value: object, fields: frozenset[str] | None) -> object:
    if fields is None or not isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return {name: msgspec.to_builtins(getattr(value, name)) for name in fields}


def _library() -> Any:
    try:
        import cel  # noqa: PLC0415  (0.2 s: only for those who need it)
    except ImportError as error:
        raise UsageError("rules and filters need the CEL library: pip install 'startgate[policy]'") from error
    return cel


def _extensions() -> dict[str, Any]:
    """Return the strings, lists, sets and math functions of cel-go."""
    _library()
    from cel import stdlib  # noqa: PLC0415

    functions: dict[str, Any] = dict(stdlib.STDLIB_FUNCTIONS)
    return functions


def _located(message: str) -> ExpressionError:
    """The library's message has the place, and draws it below."""
    found = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", message)
    if not found:
        return ExpressionError(_first_sentence(message))
    return ExpressionError(found[3], int(found[1]), int(found[2]))


def _check_names(found: References, source: str, names: Sequence[str]) -> None:
    for name in sorted(found.variables - set(names)):
        raise _unknown("name", name, names, source)
    for variable, fields in found.fields.items():
        known = _FIELDS.get(variable, ())
        for name in sorted((fields or frozenset()) - set(known)):
            raise _unknown(f"field of {variable}", name, known, source)
    functions = _FUNCTIONS.union(_extensions())
    for name in sorted(found.functions - functions):
        raise _unknown("function", name, sorted(functions), source)


def _unknown(kind: str, name: str, known: Iterable[str], source: str) -> ExpressionError:
    at = re.search(rf"\b{re.escape(name)}\b", source)
    before = source[: at.start()] if at else ""
    nearest = difflib.get_close_matches(name, list(known), 1)
    hint = f": did you mean {nearest[0]}?" if nearest else ""
    line = before.count("\n")
    return ExpressionError(f"unknown {kind} {name}{hint}", line + 1, len(before) - before.rfind("\n"))


def _first_sentence(text: str) -> str:
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else "no reason given"
