"""Rules that never match, or always, found when they are read: `"SYS_ADMIN" in container.capabilities`.

A rule's match is taken apart into its conditions. What a condition can be is known where a field
holds one of a few words, or where the rule is asked. Then all ways in which the conditions
can be true and false are tried. Only what is certain is said.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from startgate.events import Event
from startgate.fields import Field, fields_of
from startgate.policy.syntax import Node, constant, is_compared_with_null, is_null, path

_MOST = 12
"""Conditions: all ways in which they can be true and false are tried."""

_MISSING = object()

_GATES = {
    "creating": ("command",),
    "created": ("pidfile", "start", "first-exec", "none"),
    "exec": ("exec",),
}
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
}

Values = Mapping["Condition", bool]
Formula = Callable[[Values], bool]
"""What a part of the match gives, if the conditions have these values."""


@dataclass(frozen=True)
class Condition:
    """`about` something (`container.user`): is it this text? Or any other condition, `text` then is None."""

    about: str
    text: object = None


@dataclass
class _Match:
    """What is found while the match is taken apart."""

    on: Collection[str]
    conditions: dict[Condition, None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def warning(root: Node, on: Collection[str]) -> str | None:
    """Return why the expression is true of no event of the types `on`, or of all; None: it depends."""
    match = _Match(on)
    formula = _formula(root, match, {})
    if len(match.conditions) > _MOST:
        return None
    values = {formula(way) for way in _ways(match.conditions)}
    if False not in values and constant(root) is None:
        return "it always matches, whatever the container is"
    return None if True in values else f"it can never match: {_why(match)}"


def _why(match: _Match) -> str:
    alone = "it is always false" if not match.conditions else "its conditions exclude each other"
    return match.reasons[0] if match.reasons else alone


def _ways(conditions: Collection[Condition]) -> Iterator[Values]:
    """Yield the values that the conditions can have together: nothing is two texts at a time."""
    for values in itertools.product((True, False), repeat=len(conditions)):
        way = dict(zip(conditions, values, strict=True))
        held = [each.about for each in way if way[each] and each.text is not None]
        if len(set(held)) == len(held):
            yield way


Locals = Mapping[str, Field | None]
"""The variables of the loops around, and what they are of."""


def _formula(node: Node, match: _Match, local: Locals) -> Formula:
    if isinstance(value := constant(node), bool):
        return _always(value)
    if node.HasField("comprehension_expr"):
        return _loop(node, match, local)
    call = node.call_expr
    if call.function in ("_&&_", "_||_"):
        both = [_formula(each, match, local) for each in call.args]
        combined = all if call.function == "_&&_" else any
        return lambda values: combined(part(values) for part in both)
    if call.function == "!_":
        return _not(_formula(call.args[0], match, local))
    if call.function == "_?_:_":
        asked, then, otherwise = (_formula(each, match, local) for each in call.args)
        return lambda values: then(values) if asked(values) else otherwise(values)
    return _comparison(node, match, local)


def _comparison(node: Node, match: _Match, local: Locals) -> Formula:
    if is_compared_with_null(node):
        return _presence(node, match)
    known = _COMPARISONS.get(node.call_expr.function)
    return (known and known(node, match, local)) or _condition(match, node)


def _unequal(node: Node, match: _Match, local: Locals) -> Formula:
    equal = type(node)()
    equal.CopyFrom(node)
    equal.call_expr.function = "_==_"
    return _not(_comparison(equal, match, local))


def _equal(node: Node, match: _Match, local: Locals) -> Formula | None:
    left, right = sorted(node.call_expr.args, key=lambda each: constant(each) is not None)
    text = constant(right)
    return None if text is None else _is(left, (text,), match, local)


def _in(node: Node, match: _Match, local: Locals) -> Formula | None:
    item, items = node.call_expr.args
    if (texts := _constants(items)) is not None:
        return _is(item, texts, match, local)
    words = _words(items, match, local)
    if not words or (text := constant(item)) is None or text in words:
        return None
    match.reasons.append(_never_is(items, repr(text), words))
    return _always(False)


def _is(node: Node, texts: tuple[object, ...], match: _Match, local: Locals) -> Formula:
    """Is it one of the texts?"""
    if (value := constant(node)) is not None:
        return _always(value in texts)
    words = _words(node, match, local)
    found = _field(node, local)
    possible = [text for text in texts if not words or text in words]
    if found and found.path:
        possible = [text for text in possible if text == "" or _is_path(text)]
    if texts and not possible:
        match.reasons.append(_never_is(node, repr(texts[0]), words))
    parts = [_condition(match, node, text) for text in possible]
    return lambda values: any(part(values) for part in parts)


def _test(node: Node, match: _Match, local: Locals) -> Formula | None:
    tested, function, part = node.call_expr.target, node.call_expr.function, constant(node.call_expr.args[-1])
    words = _words(tested, match, local)
    if (found := _field(tested, local)) and found.path and function == "startsWith":
        words = () if str(part)[:1] in ("/", "") else ("/",)
    if not words or not isinstance(part, str) or any(_TESTS[function](word, part) for word in words):
        return None
    match.reasons.append(f"{function}({part!r}): {_never_is(tested, 'so', words)}")
    return _always(False)


_COMPARISONS: dict[str, Callable[[Node, _Match, Mapping[str, Field | None]], Formula | None]] = {
    "_!=_": _unequal,
    "_==_": _equal,
    "@in": _in,
    **dict.fromkeys(_TESTS, _test),
}


def _is_path(text: object) -> bool:
    return isinstance(text, str) and text.startswith("/") and posixpath.normpath(text) == text


def _presence(node: Node, match: _Match) -> Formula:
    """Is a field of the event null? A rule has a container always, a process at `exec`."""
    compared = next(each for each in node.call_expr.args if not is_null(each))
    way, equal = path(compared), node.call_expr.function == "_==_"
    if way == ["container"]:
        return _always(not equal)
    if way == ["process"] and "exec" not in match.on:
        match.reasons.append(f"process is known at exec only, and it is asked at {', '.join(match.on)}")
        return _always(equal)
    missing = _condition(match, compared, _MISSING)
    return _not(missing) if node.call_expr.function == "_!=_" else missing


def _loop(node: Node, match: _Match, local: Locals) -> Formula:
    """`exists` of what never is true is false; of all else about loops nothing is known."""
    loop = node.comprehension_expr
    step = loop.loop_step.call_expr
    looks_for_one = step.function == "_||_" and constant(loop.accu_init) is False
    if not looks_for_one or loop.iter_var2:
        return _condition(match, node)
    inner = _Match(match.on, reasons=match.reasons)
    found = _field(loop.iter_range, local)
    body = _formula(step.args[1], inner, {**local, loop.iter_var: found})
    if len(inner.conditions) <= _MOST and not any(map(body, _ways(inner.conditions))):
        return _always(False)
    return _condition(match, node)


def _always(value: bool) -> Formula:
    return lambda values: value


def _not(formula: Formula) -> Formula:
    return lambda values: not formula(values)


def _condition(match: _Match, node: Node, text: object = None) -> Formula:
    # "" is what a missing text reads as: the two don't exclude each other.
    condition = Condition(_key(node) if text != "" else f'"" == {_key(node)}', text)
    match.conditions[condition] = None
    return partial(_value, condition)


def _value(condition: Condition, values: Values) -> bool:
    return values[condition]


def _key(node: Node) -> str:
    """Return a text that is the same for the same expression, wherever it stands."""
    bare = type(node)()
    bare.CopyFrom(node)
    lines = str(bare).split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith("id: "))


def _constants(node: Node) -> tuple[object, ...] | None:
    """Return the items of a list that stands in the expression, as they all do."""
    items = [constant(each) for each in node.list_expr.elements]
    return tuple(items) if node.HasField("list_expr") and None not in items else None


def _words(node: Node, match: _Match, local: Locals) -> Collection[str]:
    """Return all that it can be, where that is known."""
    way = path(node)
    if way == ["type"]:
        return tuple(match.on)
    if way == ["gate"]:
        return tuple(gate for kind in match.on for gate in _GATES.get(kind, ()))
    found = _field(node, local)
    # A text that is not known reads as "".
    return found.words + (("",) if found.optional else ()) if found and found.words else ()


def _field(node: Node, local: Locals) -> Field | None:
    """Return the field that a path leads to, or whose items a loop's variable is."""
    if node.HasField("ident_expr") and node.ident_expr.name in local:
        return local[node.ident_expr.name]
    if way := path(node):
        return fields_of(Event).get(way[0]) if len(way) == 1 else _within(node, local)
    return _within(node, local) if node.HasField("select_expr") else None


def _within(node: Node, local: Locals) -> Field | None:
    holder = _field(node.select_expr.operand, local)
    return fields_of(holder.record).get(node.select_expr.field) if holder and holder.record else None


def _never_is(node: Node, text: str, words: Collection[str]) -> str:
    told = ", ".join(itertools.islice(filter(None, words), 8)) or "an absolute path in its shortest form"
    more = ", ..." if len(words) > 8 else ""
    return f"{_name(node)} is never {text}: it may be {told}{more}"


def _name(node: Node) -> str:
    """Return `container.image`, or `m.resolved` where m is a loop's variable."""
    fields: list[str] = []
    while node.HasField("select_expr"):
        fields.append(node.select_expr.field)
        node = node.select_expr.operand
    return ".".join([node.ident_expr.name.rpartition(".")[2], *reversed(fields)]).strip(".") or "it"
