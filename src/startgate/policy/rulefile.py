"""Policy files: TOML with `[[rule]]` and `[[exception]]` tables, compiled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from startgate.config import tomlfile
from startgate.config.tomlfile import Position, TomlFile
from startgate.errors import UsageError
from startgate.events import Container
from startgate.fields import fields_of
from startgate.policy import schema
from startgate.policy.cel import RULE_NAMES, ExpressionError, Result, compile_expression
from startgate.policy.patch import Changes, Patch
from startgate.policy.schema import InvalidChange
from startgate.policy.verdict import RULE_EVENTS, Action, Exemption, Rule, RuleEvent

if TYPE_CHECKING:
    from startgate.policy.engine import Expression

_T = TypeVar("_T", bound=msgspec.Struct)


class RuleTable(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[rule]]` table, as it stands in the file."""

    name: str
    match: str
    action: Action
    message: str | None = None
    message_expression: str | None = None
    on: tuple[RuleEvent, ...] | None = None
    on_error: Literal["allow", "deny"] | None = None
    fail_closed: bool = False
    patch: dict[str, Any] | None = None


class ExceptionTable(msgspec.Struct, frozen=True, kw_only=True):
    """An `[[exception]]` table: what matches is let off by the file's rules, or by some of them."""

    name: str
    match: str
    rules: tuple[str, ...] | None = None


def compile_rules(file: TomlFile) -> list[Rule]:
    """Compile the rules of a file. Raises UsageError with file, line and column."""
    if not file.text.strip():
        raise file.error("it is empty: is it being written?")
    for key in file.tables:
        if key not in ("rule", "exception"):
            raise file.error(tomlfile.unknown_key(key, ["rule", "exception"]), file.find(key))
    rules = [_rule(place, values) for place, values in _tables(file, "rule")]
    for place, values in _tables(file, "exception"):
        rules = _with_exception(place, values, rules)
    return rules


def _tables(file: TomlFile, name: str) -> list[tuple[_Place, dict[str, Any]]]:
    """Return the tables of that name, whose own names differ."""
    tables = file.tables.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise file.error(f"{name}s are tables that begin with [[{name}]]", file.find(name))
    places = [(_Place(file, name, index), table) for index, table in enumerate(tables)]
    names = [table.get("name") for table in tables]
    for index, given in enumerate(names):
        if given is not None and given in names[:index]:
            raise places[index][0].error("name", f"there are two {name}s named {given}")
    return places


@dataclass(frozen=True)
class _Place:
    """The `index`-th table of that name in a file."""

    file: TomlFile
    table: str
    index: int

    def decode(self, values: dict[str, Any], kind: type[_T]) -> _T:
        """Raises UsageError."""
        return self.file.decode(values, kind, self.table, self.index)

    def check_name(self, name: str) -> None:
        """Raises UsageError."""
        if not name or not name.isprintable():
            raise self.error("name", "its name has to be of printable characters")

    def expression(self, key: str, source: str, result: Result = "bool") -> Expression:
        """Raises UsageError with the place within the expression."""
        try:
            return compile_expression(source, RULE_NAMES, result)
        except ExpressionError as error:
            raise self.file.error(f"{key}: {error}", self._within(key, error)) from error

    def _within(self, key: str, error: ExpressionError) -> Position | None:
        """Return the place in the file of a place in the expression."""
        start = self.file.find(key, self.table, self.index)
        if start is None:
            return None
        line = self.file.text.splitlines()[start.line - 1][start.column - 1 :]
        quotes = line[:3] if line[:3] in ('"""', "'''") else line[:1]
        if line == quotes:  # a newline right after the quotes is no part of the string
            return Position(start.line + error.line, error.column)
        first = start.column + len(quotes) - 1 if error.line == 1 else 0
        return Position(start.line + error.line - 1, first + error.column)

    def error(self, key: str, message: str) -> UsageError:
        """Return an error about a key."""
        position = self.file.find(key, self.table, self.index)
        return self.file.error(message, position or self.file.find("name", self.table, self.index))


def _rule(place: _Place, values: dict[str, Any]) -> Rule:
    table = place.decode(values, RuleTable)
    _check(place, table)
    match = place.expression("match", table.match)
    message: str | Expression = table.message if table.message is not None else table.name
    if table.message_expression is not None:
        message = place.expression("message_expression", table.message_expression, "string")
    on = _events(place, table, match)
    return Rule(
        name=table.name,
        action=table.action,
        match=match,
        message=message,
        on=on,
        deny_on_error=(table.on_error or _on_error(table)) == "deny",
        fail_closed=table.fail_closed,
        patch=_patch(place, table),
        warning=_warning(place, table, match, on),
    )


def _check(place: _Place, table: RuleTable) -> None:
    place.check_name(table.name)
    if table.message is not None and table.message_expression is not None:
        raise place.error("message_expression", "give message or message_expression, not both")
    if (table.action == "patch") != (table.patch is not None):
        raise place.error("action", "a rule has a [rule.patch] table if its action is patch, else none")
    if table.action in ("warn", "audit") and table.fail_closed:
        raise place.error("fail_closed", f"a rule that can only {table.action} has nothing to close")


def _warning(place: _Place, table: RuleTable, match: Expression, on: Sequence[str]) -> str | None:
    why = match.warning(on)
    return why and str(place.error("match", f"rule {table.name}: {why}"))


def _patch(place: _Place, table: RuleTable) -> Patch | None:
    if table.patch is None:
        return None
    values = dict(table.patch)
    try:
        if isinstance(path := values.get("seccomp"), str):
            path = os.path.join(os.path.dirname(place.file.name), path)
            values["seccomp"] = schema.read_seccomp(path, place.file.reader)
        changes = place.decode(values, Changes)
        changes.check()
    except InvalidChange as error:
        raise place.error(error.key, str(error)) from error
    return Patch(**{name: getattr(changes, name) for name in changes.__struct_fields__})


def _on_error(table: RuleTable) -> str:
    """Return what follows where a rule can't be decided. Whoever is to be refused must not choose it."""
    return "deny" if table.action == "deny" or table.fail_closed else "allow"


def _events(place: _Place, table: RuleTable, match: Expression) -> tuple[RuleEvent, ...]:
    on = table.on if table.on is not None else (_earliest(match),)
    if not on:
        raise place.error("on", f"no event is listed: {', '.join(RULE_EVENTS)}")
    if table.action == "patch" and set(on) != {"creating"}:
        raise place.error("on" if table.on else "match", "a container can be patched at creating only")
    if why := _too_early(match, on):
        raise place.error("on", f"the rule {why}")
    return on


def _too_early(match: Expression, on: Sequence[RuleEvent]) -> str | None:
    """Return what an expression asks for that is not known at these events."""
    earliest = _earliest(match)
    if earliest == "exec" and set(on) != {"exec"}:
        return "asks for process, which only exec has"
    if earliest == "created" and "creating" in on:
        return "asks for what is not known at creating yet"
    return None


def _earliest(match: Expression) -> RuleEvent:
    """Return the earliest event at which all is known that the expression asks for."""
    asked = match.references.fields
    if "process" in asked:
        return "exec"
    of_container = fields_of(Container)
    known = {of_container[name].known for name in asked.get("container") or ()}
    return "created" if "created" in known else "creating"


def _with_exception(place: _Place, values: dict[str, Any], rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules, those that the exception is for with it."""
    table = place.decode(values, ExceptionTable)
    place.check_name(table.name)
    names = [rule.name for rule in rules]
    for name in table.rules or ():
        if name not in names:
            raise place.error("rules", f"there is no rule {name} in this file")
    exemption = Exemption(table.name, place.expression("match", table.match))
    return [
        _excepted(place, rule, exemption) if table.rules is None or rule.name in table.rules else rule
        for rule in rules
    ]


def _excepted(place: _Place, rule: Rule, exemption: Exemption) -> Rule:
    if why := _too_early(exemption.match, rule.on):
        at = ", ".join(rule.on)
        raise place.error(
            "match", f"it {why}, and rule {rule.name} is asked at {at}: name the `rules` it is for"
        )
    return replace(rule, exceptions=(*rule.exceptions, exemption))
