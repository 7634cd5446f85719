"""CEL's C++ implementation, with the record's types: one compiled expression, and what it is evaluated on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from startgate.events import Event
from startgate.fields import Field, fields_of
from startgate.policy import limits, messages, never, patterns, plain, presence, syntax
from startgate.policy.cel import EvaluationError, ExpressionError, Result
from startgate.policy.messages import PACKAGE
from startgate.policy.references import references

LONGEST = 4096
"""Characters of an expression."""

_FUNCTIONS = "extensions:\n" + "".join(f"  - name: {name}\n" for name in ("strings", "lists", "sets", "math"))
_TYPES = {
    "text": cel.Type.STRING,
    "number": cel.Type.INT,
    "fraction": cel.Type.DOUBLE,
    "truth": cel.Type.BOOL,
}

Unknown = frozenset[tuple[str, str]]
"""Fields that are not known, or not in full, by their path; and why: `("container.args", "is too large")`."""

_NOTHING: Unknown = frozenset()
_GIVES = {"bool": "true or false", "string": "a text"}


class _Environments(NamedTuple):
    """For the two forms of the schema (see `messages`)."""

    checked: Any
    evaluated: Any


@cache
def _environments() -> _Environments:
    known = {presence.KNOWN: cel.Type.Map(cel.Type.STRING, cel.Type.BOOL)}
    return _Environments(
        _environment(messages.pool(checked=True), {}, checked=True),
        _environment(messages.messages().pool, known, checked=False),
    )


def _environment(pool: Any, further: dict[str, Any], *, checked: bool) -> Any:
    # Names are looked for in the package first: `type` is a function of CEL, too.
    variables = {f"{PACKAGE}.{name}": _type(field, checked) for name, field in fields_of(Event).items()}
    return cel.NewEnv(
        descriptor_pool=pool,
        config=cel.NewEnvConfigFromYaml(_FUNCTIONS),
        container=PACKAGE,
        variables=variables | further,
    )


def _type(field: Field, checked: bool) -> Any:
    if field.record:
        item = cel.Type(f"{PACKAGE}.{field.record.__name__}")
    elif field.optional and checked:
        item = cel.Type(messages.wrapper(field.kind))
    else:
        item = _TYPES[field.kind]
    return cel.Type.List(item) if field.shape == "list" else item


class Expression:
    """One compiled expression. Any thread may evaluate it."""

    def __init__(self, source: str, names: Sequence[str], result: Result) -> None:
        """Raises ExpressionError."""
        if len(source) > LONGEST:
            raise ExpressionError(f"longer than {LONGEST} characters")
        serialized = _check(source, result)
        self.tree = syntax.Tree(serialized)
        try:
            self.references = references(self.tree.root, names)
            patterns.check(self.references.patterns, _environments().evaluated)
        except syntax.Misuse as error:
            raise ExpressionError(str(error), *self.tree.place(error.node)) from error
        self._source = (serialized, result)
        self._programs = {_NOTHING: _program(*self._source, _NOTHING)}
        self._try(_environments().evaluated.Activation({}))  # it is planned once, at its first use

    def warning(self, on: Collection[str]) -> str | None:
        """Return why it is true of no event of these types, or of all; None: it depends."""
        return never.warning(self.tree.root, on)

    def check_cost(self, event: Event) -> None:
        """Raises EvaluationError: the event is so large that evaluating would keep all others waiting."""
        if why := limits.excess(event, self.references):
            raise EvaluationError(why)

    def evaluate(self, context: Any, unknown: Unknown = _NOTHING) -> Any:
        """Return the value. Raises EvaluationError, which says why there is none: for one, because it
        hangs on a field that is `unknown`.
        """
        value, error = self._try(context, unknown)
        if error:
            raise EvaluationError(error)
        return value

    def _try(self, context: Any, unknown: Unknown = _NOTHING) -> tuple[Any, str]:
        """Return the value, and what went wrong."""
        if unknown not in self._programs:
            self._programs[unknown] = _program(*self._source, unknown)
        try:
            result = self._programs[unknown].eval(context)
        except RuntimeError as error:
            return None, plain.why(str(error))
        value = result.value()
        if isinstance(value, str) and result.type().name() == "ERROR":
            return None, plain.why(value)
        return value, ""


def _check(source: str, result: Result) -> bytes:
    """Return what the checker makes of an expression. Raises ExpressionError."""
    try:
        checked = _environments().checked.compile(source)
    except UnicodeError as error:
        raise ExpressionError("it is no UTF-8") from error
    except RuntimeError as error:
        raise ExpressionError(*plain.located(str(error), source)) from error
    given = checked.return_type().name().lower()
    if given != result:
        raise ExpressionError(f"it has to give {_GIVES[result]}, and gives {plain.type_name(given)}")
    return bytes(checked.serialize())


def _program(serialized: bytes, result: Result, unknown: Unknown) -> Any:
    # The library miscounts its references to None: no value may be null.
    tree = syntax.Tree(serialized)
    presence.without_null(tree)
    if unknown:
        presence.without_unknown(tree, {field: f"{field}{plain.UNKNOWN}{why}" for field, why in unknown})
    if result == "bool":
        presence.must_be_true(tree)
    return _environments().evaluated.deserialize(tree.serialized())


class Asked:
    """What some expressions ask for, all together: only this is converted, which costs most of the time."""

    def __init__(self, expressions: Sequence[Expression]) -> None:
        self._fields: dict[str, set[str] | None] = {}
        self._compared_with_null: set[str] = set()
        for expression in expressions:
            self._compared_with_null |= expression.references.compared_with_null
            for name, fields in expression.references.fields.items():
                before = self._fields.get(name, set())
                self._fields[name] = None if fields is None or before is None else before | fields

    def context(self, event: Event) -> Any:
        """Return what the expressions are evaluated on. Raises EvaluationError."""
        values: dict[str, Any] = {}
        try:
            for name, fields in self._fields.items():
                if (value := getattr(event, name)) is not None:
                    values[f"{PACKAGE}.{name}"] = messages.converted(value, fields)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        there = {name: True for name in self._compared_with_null if getattr(event, name) is not None}
        return _environments().evaluated.Activation({**values, presence.KNOWN: there})
