"""What an expression asks for, and what evaluating it may cost.

What a rule asks of `container` decides at which gate it can be judged. The CEL library
keeps Python's lock while it evaluates: meanwhile nobody answers for any held task, no
deadline either. It counts the steps of loops, and ends at 10,000. But a step may itself take
long: lists grow by copying, and a regular expression is compiled each time that it is asked.
Whoever starts containers chooses how many items there are, so these steps are `slow` ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from startgate.events import Event
from startgate.fields import Field, fields_of
from startgate.policy.syntax import (
    Misuse,
    Node,
    base,
    children,
    constant,
    is_compared_with_null,
    is_null,
    path,
    variable,
)

_CONSTANT_ARGUMENTS = {"matches": "pattern", "replace": "argument", "lists.range": "argument"}
"""What whoever starts containers must not choose: it may take any time, or memory."""
_LONGEST_RANGE = 1000


@dataclass(slots=True)
class References:
    """What an expression asks for."""

    fields: dict[str, set[str] | None] = field(default_factory=dict)
    """For each of the event's fields, which of the fields within; None: it is used as a whole."""
    compared_with_null: set[str] = field(default_factory=set)
    """Fields of the event of which it asks whether they are there."""
    patterns: list[tuple[str, Node]] = field(default_factory=list)
    """The regular expressions."""
    slow: int = 0
    """How many loops, each over the whole of a collection, are around a slow step; 0: there is none."""

    def ask_for(self, name: str, within: str) -> bool:
        """Does it ask for this field of a field of the event's?"""
        fields = self.fields.get(name, ())
        return fields is None or within in fields


def references(root: Node, names: Sequence[str]) -> References:
    """Return what an expression asks for; `names` are those of the event that it may. Raises Misuse."""
    found = _Walk(names)
    found.visit(root, 0, frozenset())
    return found.references


class _Walk:
    """Visits each node; `loops` are those around it, `local` their variables."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.references = References()

    def visit(self, node: Node, loops: int, local: frozenset[str]) -> None:
        if is_null(node):
            raise Misuse("null can only be compared: container.image == null, or !=", node)
        if way := path(node):
            self._check_name(way[0], node)
            self._ask(way, loops)
        elif node.HasField("comprehension_expr"):
            self._loop(node, loops, local)
        else:
            if node.HasField("call_expr"):
                self._call(node, loops)
            for child in _without_null(node):
                if way := path(child) if is_compared_with_null(node) else []:
                    self._check_name(way[0], child)
                    self._ask_for_presence(way)
                else:
                    self.visit(child, loops, local)

    def _check_name(self, name: str, node: Node) -> None:
        if name not in self._names:
            raise Misuse(f"{name} can't be asked for here: {', '.join(self._names)} can", node)

    def _ask(self, way: list[str], loops: int) -> None:
        name, *within = way
        asked = self.references.fields.setdefault(name, set())
        if not within and fields_of(Event)[name].record:
            self.references.fields[name] = None
        elif within and asked is not None:
            asked.add(within[0])
        last = field_at(way)
        if last and last.shape != "one" and loops:
            self._slow(loops)

    def _ask_for_presence(self, way: list[str]) -> None:
        if len(way) == 1:
            self.references.compared_with_null.add(way[0])
        else:
            self._ask(way, 0)

    def _loop(self, node: Node, loops: int, local: frozenset[str]) -> None:
        loop = node.comprehension_expr
        names = {loop.iter_var, loop.iter_var2}
        if hidden := sorted(names & fields_of(Event).keys()):
            raise Misuse(f"the loop's variable {hidden[0]} hides the event's {hidden[0]}: rename it", node)
        over = loop.iter_range
        self.visit(over, loops, local)
        # What is below a loop's variable is met once, however many loops there are. What stands in the
        # expression itself does not grow.
        if not (base(over).ident_expr.name in local or over.HasField("list_expr")):
            loops += 1
        if loops and loop.accu_init.HasField("list_expr"):
            self._slow(loops)
        for part in (loop.loop_condition, loop.loop_step, loop.result):
            self.visit(part, loops, local | names)

    def _call(self, node: Node, loops: int) -> None:
        function = node.call_expr.function
        if not (called := _CONSTANT_ARGUMENTS.get(function)):
            return
        given = [constant(argument) for argument in node.call_expr.args]
        if function == "matches":
            given = given[-1:]
            self.references.patterns.append((str(given[0]), node))
            if loops:
                self._slow(loops)
        if None in given or any(isinstance(each, int) and each > _LONGEST_RANGE for each in given):
            raise Misuse(f"the {called} of {function} has to stand in the expression itself", node)

    def _slow(self, loops: int) -> None:
        self.references.slow = max(self.references.slow, loops)


def _without_null(node: Node) -> list[Node]:
    """Return the children; a null that something is compared with is none of them."""
    if not is_compared_with_null(node):
        return list(children(node))
    compared = next((each for each in node.call_expr.args if not is_null(each)), node.call_expr.args[0])
    if not (compared.HasField("select_expr") or variable(compared)):
        raise Misuse("only a field can be compared with null", node)
    return [compared]


def field_at(way: list[str]) -> Field | None:
    """Return what is known of `container.mounts`; None for what is within a map."""
    record: type | None = Event
    found = None
    for name in way:
        found = fields_of(record).get(name) if record else None
        record = found.record if found and found.shape == "one" else None
    return found
