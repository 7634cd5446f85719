"""One rule, and what it says of an event. Judging never raises: whatever a rule meets, it has a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from startgate.events import Deny, Event, Note
from startgate.foreign import one_line
from startgate.policy.cel import EvaluationError
from startgate.policy.patch import Patch
from startgate.policy.unknown import Unknown, asked_for

if TYPE_CHECKING:
    from startgate.policy.engine import Expression

Action = Literal["deny", "warn", "audit", "patch"]
RuleEvent = Literal["creating", "created", "exec"]
RULE_EVENTS: tuple[RuleEvent, ...] = get_args(RuleEvent)

Said = Deny | Note | Patch


@dataclass(frozen=True, slots=True)
class Question:
    """An event that rules are asked about."""

    event: Event
    context: Any
    """What their expressions are evaluated on."""
    unknown: Unknown

    def matches(self, expression: Expression) -> bool:
        """Raises EvaluationError."""
        expression.check_cost(self.event)
        unknown = asked_for(self.unknown, expression.references.fields)
        return bool(expression.evaluate(self.context, unknown))


@dataclass(frozen=True)
class Exemption:
    """An exception: what matches is let off."""

    name: str
    match: Expression

    def covers(self, asked: Question) -> bool:
        """Does it match? What can't be decided is not let off."""
        try:
            return asked.matches(self.match)
        except EvaluationError:
            return False


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
    warning: str | None = None
    """Why it never matches, or always, with its place."""
    exceptions: tuple[Exemption, ...] = ()

    @property
    def expressions(self) -> list[Expression]:
        """All that is evaluated."""
        messages = [] if isinstance(self.message, str) else [self.message]
        return [self.match, *messages, *(each.match for each in self.exceptions)]

    @property
    def asks_for_actual(self) -> bool:
        """Does it ask for what the kernel says of the container?"""
        return any(each.references.ask_for("container", "actual") for each in self.expressions)

    def judge(self, asked: Question) -> list[Said]:
        """Return what the rule says of an event; nothing where it does not match."""
        said = self._judge(asked)
        exempt = said and any(each.covers(asked) for each in self.exceptions)
        return [] if exempt else said

    def _judge(self, asked: Question) -> list[Said]:
        try:
            matches = asked.matches(self.match)
        except EvaluationError as error:
            return self.failed(str(error))
        return self._say(asked) if matches else []

    def failed(self, why: str) -> list[Said]:
        """Return what is said where the rule could not be decided."""
        message = f"rule {self.name} could not be decided: {why}"
        note = Note(message, self.name, "error")
        return [note, Deny(message, self.name)] if self.deny_on_error else [note]

    def _say(self, asked: Question) -> list[Said]:
        message = self._message(asked)
        if self.action == "deny":
            return [Deny(message, self.name)]
        if self.action == "patch":
            patch = self.patch or Patch()
            required = self.deny_on_error
            return [msgspec.structs.replace(patch, rule=self.name, message=message, required=required)]
        return [Note(message, self.name, self.action)]

    def _message(self, asked: Question) -> str:
        if isinstance(self.message, str):
            return self.message
        try:
            self.message.check_cost(asked.event)
            return one_line(str(self.message.evaluate(asked.context)))
        except EvaluationError as error:
            return f"{self.name} (its message could not be made: {error})"
