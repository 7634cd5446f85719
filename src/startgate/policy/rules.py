"""Policy files: TOML with `[[rule]]` tables, compiled and judged.

Judging never raises: whatever a rule meets, it has a verdict.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from startgate.config import tomlfile
from startgate.config.tomlfile import Position, Reader, TomlFile
from startgate.errors import UsageError
from startgate.events import Container, Event, EventType, Note
from startgate.fields import fields_of
from startgate.foreign import one_line
from startgate.listeners import Deny, Registration
from startgate.policy import schema, unknown
from startgate.policy.cel import (
    RULE_NAMES,
    EvaluationError,
    ExpressionError,
    Result,
    asked_by,
    compile_expression,
)
from startgate.policy.patch import Changes, Patch
from startgate.policy.schema import InvalidChange

if TYPE_CHECKING:
    from startgate.policy.engine import Expression

Action = Literal["deny", "warn", "audit", "patch"]
RuleEvent = Literal["creating", "created", "exec"]
RULE_EVENTS: tuple[RuleEvent, ...] = get_args(RuleEvent)

Said = Deny | Note | Patch


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


@dataclass(frozen=True)
class Rule:
    """A rule that compiled."""

    name: str
    action: Action
    match: Expression
    message: str | Expression
    on: tuple[RuleEvent, ...]
    deny_on_error: bool
    fail_closed: bool
    patch: Patch | None
    never: str | None = None
    """Why it can never match, with its place; None: it may well."""

    @property
    def expressions(self) -> list[Expression]:
        """All that is evaluated."""
        return [self.match] if isinstance(self.message, str) else [self.match, self.message]

    def judge(self, event: Event, context: Any) -> list[Said]:
        """Return what the rule says of an event; nothing where it does not match."""
        try:
            self.match.check_cost(event)
            matches = self.match.evaluate(context, unknown.of(event, self.match.references.fields))
        except EvaluationError as error:
            return self.failed(str(error))
        return self._say(event, context) if matches else []

    def failed(self, why: str) -> list[Said]:
        """Return what is said where the rule could not be decided."""
        message = f"rule {self.name} could not be decided: {why}"
        note = Note(message, self.name, "error")
        return [note, Deny(message, self.name)] if self.deny_on_error else [note]

    def _say(self, event: Event, context: Any) -> list[Said]:
        message = self._message(event, context)
        if self.action == "deny":
            return [Deny(message, self.name)]
        if self.action == "patch":
            patch = self.patch or Patch()
            required = self.deny_on_error
            return [msgspec.structs.replace(patch, rule=self.name, message=message, required=required)]
        return [Note(message, self.name, self.action)]

    def _message(self, event: Event, context: Any) -> str:
        if isinstance(self.message, str):
            return self.message
        try:
            self.message.check_cost(event)
            return one_line(str(self.message.evaluate(context)))
        except EvaluationError as error:
            return f"{self.name} (its message could not be made: {error})"


class Policy:
    """Rules, in their order. Callbacks of the watcher; any thread may use it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_event: dict[EventType, list[Rule]] = {
            kind: found for kind in RULE_EVENTS if (found := [rule for rule in rules if kind in rule.on])
        }
        self._asked = {
            kind: asked_by([each for rule in found for each in rule.expressions])
            for kind, found in self._by_event.items()
        }

    def registrations(self) -> list[Registration]:
        """Return the callbacks by which the rules are asked."""
        return [
            Registration(kind, self.decide, any(rule.fail_closed for rule in rules))
            for kind, rules in self._by_event.items()
        ]

    def decide(self, event: Event) -> list[Said]:
        """Return what the rules for this event say: all warnings, and the first refusal."""
        return [word for _, said in self.judge(event) for word in said]

    def judge(self, event: Event) -> list[tuple[Rule, list[Said]]]:
        """As `decide`, by rule. After the first refusal only what is to be recorded is asked."""
        rules = self._by_event.get(event.type, ())
        if not rules:
            return []
        try:
            context = self._asked[event.type].context(event)
        except EvaluationError as error:
            return [(rule, rule.failed(str(error))) for rule in rules]
        verdicts: list[tuple[Rule, list[Said]]] = []
        denied = False
        for rule in rules:
            if denied and rule.action in ("deny", "patch"):
                continue
            said = rule.judge(event, context)
            verdicts.append((rule, [word for word in said if not (denied and isinstance(word, Deny))]))
            denied = denied or any(isinstance(word, Deny) for word in said)
        return verdicts


def load(paths: Sequence[str], reader: Reader = tomlfile.read_any) -> Policy:
    """Read policy files, one after the other. Raises UsageError with file, line and column."""
    files = [tomlfile.read(path, reader) for path in paths]
    return Policy([rule for file in files for rule in compile_rules(file)])


def compile_rules(file: TomlFile) -> list[Rule]:
    """Compile the rules of a file. Raises UsageError, as `load`."""
    if not file.text.strip():
        raise file.error("it is empty: is it being written?")
    for key in file.tables:
        if key != "rule":
            raise file.error(tomlfile.unknown_key(key, ["rule"]), file.find(key))
    tables = file.tables.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise file.error("rules are tables that begin with [[rule]]", file.find("rule"))
    rules = [_Compiler(file, index).compile(table) for index, table in enumerate(tables)]
    names = [rule.name for rule in rules]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise file.error(f"there are two rules named {name}", file.find("name", "rule", index))
    return rules


class _Compiler:
    """Makes a rule of the `index`-th table of a file."""

    def __init__(self, file: TomlFile, index: int) -> None:
        self._file = file
        self._index = index

    def compile(self, values: dict[str, Any]) -> Rule:
        table = self._file.decode(values, RuleTable, "rule", self._index)
        self._check(table)
        match = self._expression("match", table.match, "bool")
        message: str | Expression = table.message if table.message is not None else table.name
        if table.message_expression is not None:
            message = self._expression("message_expression", table.message_expression, "string")
        on = self._events(table, match)
        return Rule(
            name=table.name,
            action=table.action,
            match=match,
            message=message,
            on=on,
            deny_on_error=(table.on_error or _on_error(table)) == "deny",
            fail_closed=table.fail_closed,
            patch=self._patch(table),
            never=self._never(table.name, match, on),
        )

    def _never(self, name: str, match: Expression, on: Sequence[str]) -> str | None:
        why = match.why_never(on)
        return why and str(self._error("match", f"rule {name} can never match: {why}"))

    def _patch(self, table: RuleTable) -> Patch | None:
        if table.patch is None:
            return None
        values = dict(table.patch)
        try:
            if isinstance(path := values.get("seccomp"), str):
                path = os.path.join(os.path.dirname(self._file.name), path)
                values["seccomp"] = schema.read_seccomp(path, self._file.reader)
            changes = self._file.decode(values, Changes, "rule", self._index)
            changes.check()
        except InvalidChange as error:
            raise self._error(error.key, str(error)) from error
        return Patch(**{name: getattr(changes, name) for name in changes.__struct_fields__})

    def _check(self, table: RuleTable) -> None:
        if not table.name or not table.name.isprintable():
            raise self._error("name", "a rule needs a name of printable characters")
        if table.message is not None and table.message_expression is not None:
            raise self._error("message_expression", "give message or message_expression, not both")
        if (table.action == "patch") != (table.patch is not None):
            raise self._error("action", "a rule has a [rule.patch] table if its action is patch, else none")
        if table.action in ("warn", "audit") and table.fail_closed:
            raise self._error("fail_closed", f"a rule that can only {table.action} has nothing to close")

    def _expression(self, key: str, source: str, result: Result) -> Expression:
        try:
            return compile_expression(source, RULE_NAMES, result)
        except ExpressionError as error:
            raise self._file.error(f"{key}: {error}", self._place(key, error)) from error

    def _place(self, key: str, error: ExpressionError) -> Position | None:
        """Return the place in the file of a place in the expression."""
        start = self._file.find(key, "rule", self._index)
        if start is None:
            return None
        line = self._file.text.splitlines()[start.line - 1][start.column - 1 :]
        quotes = line[:3] if line[:3] in ('"""', "'''") else line[:1]
        if line == quotes:  # a newline right after the quotes is no part of the string
            return Position(start.line + error.line, error.column)
        first = start.column + len(quotes) - 1 if error.line == 1 else 0
        return Position(start.line + error.line - 1, first + error.column)

    def _events(self, table: RuleTable, match: Expression) -> tuple[RuleEvent, ...]:
        earliest = _earliest(match)
        on = table.on if table.on is not None else (earliest,)
        if not on:
            raise self._error("on", f"no event is listed: {', '.join(RULE_EVENTS)}")
        if table.action == "patch" and set(on) != {"creating"}:
            raise self._error("on" if table.on else "match", "a container can be patched at creating only")
        if earliest == "exec" and set(on) != {"exec"}:
            raise self._error("on", "the rule asks for process, which only exec has")
        if earliest == "created" and "creating" in on:
            raise self._error("on", "the rule asks for what is not known at creating yet")
        return on

    def _error(self, key: str, message: str) -> UsageError:
        position = self._file.find(key, "rule", self._index) or self._file.find("name", "rule", self._index)
        return self._file.error(message, position)


def _on_error(table: RuleTable) -> str:
    """Return what follows where a rule can't be decided. Whoever is to be refused must not choose it."""
    return "deny" if table.action == "deny" or table.fail_closed else "allow"


def _earliest(match: Expression) -> RuleEvent:
    """Return the earliest event at which all is known that the expression asks for."""
    asked = match.references.fields
    if "process" in asked:
        return "exec"
    of_container = fields_of(Container)
    known = {of_container[name].known for name in asked.get("container") or ()}
    return "created" if "created" in known else "creating"
