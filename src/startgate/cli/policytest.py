"""A dry run of rules on a bundle: the record is made as the command gate makes it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from startgate import engines
from startgate.cli.containers import choose, scan
from startgate.engines.reference import full
from startgate.errors import BundleError, StartgateError, UsageError
from startgate.events import Container, Deny, Event, Note, Process, timestamp
from startgate.foreign import UNDECODABLE, json_line, one_line
from startgate.gates import host
from startgate.gates.view import View
from startgate.kernel import capabilities
from startgate.kernel.process import Proc
from startgate.policy import rules
from startgate.policy.patch import Document, Patch, apply_all
from startgate.policy.rules import Policy, Rule, Said
from startgate.runtimes import describe, oci


class RuleResult(msgspec.Struct):
    """What one rule says."""

    rule: str
    event: str
    result: Literal["deny", "warn", "audit", "patch", "error", "no match", "not asked"]
    message: str | None = None


class Result(msgspec.Struct):
    """What a policy says of a container."""

    verdict: Literal["allow", "deny"]
    rules: list[RuleResult]
    notes: list[Note]
    reason: Deny | None = None
    patch: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Trial:
    """A container that is not started."""

    container: Container
    document: Document

    @classmethod
    def of_bundle(cls, bundle: str) -> Trial:
        """Raises StartgateError: the bundle can't be read."""
        path = os.path.join(os.path.abspath(bundle), oci.CONFIG)
        try:
            with View(Proc(), None) as view:
                data = view.read_small(path)
            return cls(_describe(os.path.dirname(path), data), _decode(data, path))
        except OSError as error:
            raise StartgateError(f"{path}: {error.strerror}") from error
        except BundleError as error:
            raise StartgateError(f"{path}: {error}") from error

    @classmethod
    def of_container(cls, name: str) -> Trial:
        """Take a container that is there now. Raises StartgateError: there is none of that name."""
        looked = scan("/", actual=True)
        found = choose(looked, name)
        return cls(found.container, _decode(looked.config_json(found), name))

    def edited(self, annotations: Sequence[str], image: str | None) -> Trial:
        """Return the same with further annotations and another image."""
        added = (self.document.get("annotations") or {}) | dict(_pair(text) for text in annotations)
        container = replace(
            self.container,
            annotations=self.container.annotations | added,
            image=image or self.container.image,
            image_reference=full(image) if image else self.container.image_reference,
            unknown=tuple(
                name for name in self.container.unknown if not (image and name.startswith("image"))
            ),
        )
        return Trial(container, self.document | ({"annotations": added} if added else {}))

    def judge(self, file: str, execute: str | None = None) -> Result:
        """Ask the rules of a file. Raises UsageError, as `rules.load`."""
        policy = rules.load([file])
        said = policy.judge(self._event("creating"))
        result = _result(said)
        if self.container.pid is not None and result.verdict == "allow":
            self._more(result, policy, self._event("created"))
        patches = [word for _, words in said for word in words if isinstance(word, Patch)]
        if result.verdict == "allow" and patches:
            self._apply(result, patches)
        if execute is not None and result.verdict == "allow":
            self._more(result, policy, self._event("exec", execute))
        asked = {each.rule for each in result.rules}
        result.rules += [
            RuleResult(r.name, r.on[0], "not asked") for r in policy.rules if r.name not in asked
        ]
        return result

    def _apply(self, result: Result, patches: Sequence[Patch]) -> None:
        patched = apply_all(self.document, patches)
        result.notes += patched.notes
        result.patch = [operation for note in patched.notes for operation in note.patch]
        if patched.deny:
            result.verdict, result.reason = "deny", patched.deny

    def _more(self, result: Result, policy: Policy, event: Event) -> None:
        """Add what the rules say of a later event."""
        more = _result(policy.judge(event), event.type)
        result.rules += more.rules
        result.notes += more.notes
        result.verdict, result.reason = more.verdict, more.reason

    def _event(self, kind: rules.RuleEvent, command: str = "") -> Event:
        process = Process(argv=_words(command), user=self.container.user, cwd="/") if kind == "exec" else None
        return Event(type=kind, time=timestamp(), gate="none", container=self.container, process=process)


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--exec {command!r}: {error}") from error


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--annotation {text!r}: it is written KEY=VALUE")
    return name, value


def _decode(data: bytes, name: str) -> Document:
    try:
        return msgspec.json.decode(data, type=Document)
    except UNDECODABLE as error:
        raise StartgateError(f"{name}: {error}") from error


def _describe(bundle: str, data: bytes) -> Container:
    proc = Proc()
    config = oci.decode_config(data)
    container = Container(id=os.path.basename(bundle), bundle=bundle, uid=0)
    container = describe.container_of(container, config, capabilities.of_host(proc))
    with View(proc, os.getpid()) as view:
        container = host.complete(container, config, view, proc, proc.namespaces(os.getpid()))
        return engines.identify(container, "/run/runc", view.trusted_files(), list)


def _result(verdicts: Sequence[tuple[Rule, list[Said]]], event: str = "creating") -> Result:
    words = [word for _, said in verdicts for word in said]
    deny = next((word for word in words if isinstance(word, Deny)), None)
    return Result(
        verdict="deny" if deny else "allow",
        rules=[_rule_result(rule, said, event) for rule, said in verdicts],
        notes=[word for word in words if isinstance(word, Note)],
        reason=deny,
    )


def _rule_result(rule: Rule, said: Sequence[Said], event: str) -> RuleResult:
    if not said:
        return RuleResult(rule.name, event, "no match")
    first = said[0]
    kind = "deny" if isinstance(first, Deny) else "patch" if isinstance(first, Patch) else first.action
    return RuleResult(rule.name, event, kind, first.message)


def show(result: Result, output: str) -> None:
    """Print a result."""
    if output == "json":
        sys.stdout.write(json_line(result).decode() + "\n")
        return
    width = max((len(each.rule) for each in result.rules), default=4)
    lines = [f"{'RULE':<{width}} {'EVENT':<8} {'RESULT':<9} MESSAGE"]
    lines += [
        f"{r.rule:<{width}} {r.event:<8} {r.result:<9} {r.message or ''}".rstrip() for r in result.rules
    ]
    for note in result.notes:
        for operation in note.patch:
            value = msgspec.json.encode(operation["value"]).decode() if "value" in operation else ""
            lines.append(f"  {note.rule}: {operation['op']} {operation['path']} {value}".rstrip())
    by = f" by {result.reason.rule}: {result.reason.message}" if result.reason else ""
    lines.append(f"verdict: {result.verdict}{by}")
    sys.stdout.write("".join(one_line(line) + "\n" for line in lines))
