"""Comparisons with null, as they are evaluated: is the field there?

Evaluated, an optional text has no null (see `messages`), nor has a record; `X != null` becomes
`has(X)`. Whether the event itself has a container, a process, ... the map `known` tells. What is not
known, or not in full, is looked up there, too, by the reason, and is not in it: so it has no value, and
what hangs on it none.
"""

from __future__ import annotations

from collections.abc import Mapping

from startgate.policy.messages import PACKAGE
from startgate.policy.syntax import Node, Tree, children, is_compared_with_null, is_null, path, variable

KNOWN = f"{PACKAGE}.known"

_NEW = 1 << 30
"""The id of a node that the checker has not seen."""


def without_null(tree: Tree) -> None:
    """Replace the comparisons with null, in place."""
    _replace(tree, tree.root)


def without_unknown(tree: Tree, unknown: Mapping[str, str]) -> None:
    """Replace what is asked of these fields, in place, after `without_null`: `container.image`, and why."""
    _forbid(tree, tree.root, unknown)


def must_be_true(tree: Tree) -> None:
    """Have the expression give false where its value is null."""
    compared = type(tree.root)(id=_NEW)
    compared.call_expr.function = "_==_"
    compared.call_expr.args.add().CopyFrom(tree.root)
    compared.call_expr.args.add(id=_NEW + 1).const_expr.bool_value = True
    tree.root.CopyFrom(compared)


def _replace(tree: Tree, node: Node) -> None:
    for child in _all_children(node):
        _replace(tree, child)
    if not is_compared_with_null(node):
        return
    equal = node.call_expr.function == "_==_"
    null, compared = sorted(node.call_expr.args, key=is_null, reverse=True)
    asked = _has(tree, compared, null)
    tree.forget(node)
    if equal:
        del node.call_expr.args[:]
        node.call_expr.function = "!_"
        node.call_expr.args.add().CopyFrom(asked)
    else:
        node.CopyFrom(asked)


def _forbid(tree: Tree, node: Node, unknown: Mapping[str, str]) -> None:
    if why := unknown.get(".".join(path(node))):
        tree.forget(node)
        tree.forget(node.select_expr.operand)
        node.call_expr.function = "_[_]"
        node.call_expr.args.add(id=_NEW + 2).ident_expr.name = KNOWN
        node.call_expr.args.add(id=_NEW + 3).const_expr.string_value = why
        return
    for child in _all_children(node):
        _forbid(tree, child, unknown)


def _has(tree: Tree, compared: Node, null: Node) -> Node:
    asked = type(compared)()
    asked.CopyFrom(compared)
    if name := variable(compared):
        tree.forget(compared)
        asked.select_expr.operand.id = null.id
        asked.select_expr.operand.ident_expr.name = KNOWN
        asked.select_expr.field = name
    asked.select_expr.test_only = True
    return asked


def _all_children(node: Node) -> list[Node]:
    if not node.HasField("comprehension_expr"):
        return list(children(node))
    loop = node.comprehension_expr
    return [loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result]
