"""Rules, all together: read from files, asked at events."""

from __future__ import annotations

from collections.abc import Sequence

from startgate.config import tomlfile
from startgate.config.tomlfile import Reader
from startgate.events import Event, EventType
from startgate.listeners import Deny, Registration
from startgate.policy import unknown
from startgate.policy.cel import EvaluationError, asked_by
from startgate.policy.rulefile import compile_rules
from startgate.policy.verdict import RULE_EVENTS, Question, Rule, RuleEvent, Said

__all__ = ["Policy", "Rule", "RuleEvent", "Said", "compile_rules", "load"]


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
            Registration(
                kind,
                self.decide,
                any(rule.fail_closed for rule in rules),
                any(rule.asks_for_actual for rule in rules),
            )
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
            asked = Question(event, self._asked[event.type].context(event), unknown.of(event))
        except EvaluationError as error:
            return [(rule, rule.failed(str(error))) for rule in rules]
        verdicts: list[tuple[Rule, list[Said]]] = []
        denied = False
        for rule in rules:
            if denied and rule.action in ("deny", "patch"):
                continue
            said = rule.judge(asked)
            verdicts.append((rule, [word for word in said if not (denied and isinstance(word, Deny))]))
            denied = denied or any(isinstance(word, Deny) for word in said)
        return verdicts


def load(paths: Sequence[str], reader: Reader = tomlfile.read_any) -> Policy:
    """Read policy files, one after the other. Raises UsageError with file, line and column."""
    files = [tomlfile.read(path, reader) for path in paths]
    return Policy([rule for file in files for rule in compile_rules(file)])
