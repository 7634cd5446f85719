"""The syntax tree of a checked expression.

CEL's checker gives the tree as a protobuf message, cel.expr.CheckedExpr
(github.com/google/cel-spec, proto/cel/expr/{checked,syntax}.proto). Declared here is what is
looked at; all else in it is kept as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

from startgate.policy.messages import PACKAGE

Node = Any
"""A cel.expr.Expr."""

_F = descriptor_pb2.FieldDescriptorProto
_TYPES = {"bool": _F.TYPE_BOOL, "int": _F.TYPE_INT64, "int32": _F.TYPE_INT32, "text": _F.TYPE_STRING}
_MESSAGES = {
    "Ident": "name:1:text",
    "Select": "operand:1:Expr field:2:text test_only:3:bool",
    "Call": "target:1:Expr function:2:text args:3:*Expr",
    "CreateList": "elements:1:*Expr",
    "Entry": "map_key:3:Expr value:4:Expr",
    "CreateStruct": "message_name:1:text entries:2:*Entry",
    "Comprehension": "iter_var:1:text iter_var2:8:text iter_range:2:Expr accu_init:4:Expr "
    "loop_condition:5:Expr loop_step:6:Expr result:7:Expr",
    "Constant": "null_value:1:int32? bool_value:2:bool? int64_value:3:int? string_value:6:text?",
    "Expr": "id:2:int const_expr:3:Constant? ident_expr:4:Ident? select_expr:5:Select? call_expr:6:Call? "
    "list_expr:7:CreateList? struct_expr:8:CreateStruct? comprehension_expr:9:Comprehension?",
    "ReferenceEntry": "key:1:int value:2:Reference",
    "Reference": "",
    "PositionEntry": "key:1:int value:2:int32",
    "SourceInfo": "line_offsets:3:*int32 positions:4:*PositionEntry",
    "CheckedExpr": "reference_map:2:*ReferenceEntry expr:4:Expr source_info:5:SourceInfo",
}
"""NAME:NUMBER:TYPE; `*`: repeated, `?`: one of those that the message may hold."""


@cache
def _checked_expr() -> Any:
    """Return the class of a cel.expr.CheckedExpr."""
    file = descriptor_pb2.FileDescriptorProto(name="checked.proto", package="syntax", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            _declare(message, *text.split(":"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("syntax.CheckedExpr"))


def _declare(message: Any, name: str, number: str, kind: str) -> None:
    bare = kind.strip("*?")
    made = message.field.add(name=name, number=int(number), type=_TYPES.get(bare, _F.TYPE_MESSAGE))
    made.label = _F.LABEL_REPEATED if kind.startswith("*") else _F.LABEL_OPTIONAL
    if bare not in _TYPES:
        made.type_name = f".syntax.{bare}"
    if kind.endswith("?"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="kind")
        made.oneof_index = 0


class Misuse(Exception):
    """What the checker allows, and a rule or filter must not do; `node` is where."""

    def __init__(self, message: str, node: Node) -> None:
        super().__init__(message)
        self.node = node


class Tree:
    """A checked expression."""

    def __init__(self, serialized: bytes) -> None:
        """`serialized` is what the CEL library made of the expression."""
        self._any = any_pb2.Any.FromString(serialized)
        self._checked = _checked_expr().FromString(self._any.value)
        self._positions = {entry.key: entry.value for entry in self._checked.source_info.positions}

    @property
    def root(self) -> Node:
        """The outermost node."""
        return self._checked.expr

    def place(self, node: Node) -> tuple[int, int]:
        """Return line and column, both from 1."""
        at = self._positions.get(node.id, 0)
        ends = [end for end in self._checked.source_info.line_offsets if end <= at]
        return len(ends) + 1, at - (ends[-1] if ends else 0) + 1

    def forget(self, node: Node) -> None:
        """Drop what the checker found a node to mean: the node was changed since."""
        kept = [entry for entry in self._checked.reference_map if entry.key != node.id]
        del self._checked.reference_map[:]
        self._checked.reference_map.extend(kept)

    def serialized(self) -> bytes:
        """Return what the library evaluates."""
        self._any.value = self._checked.SerializeToString()
        return bytes(self._any.SerializeToString())


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes right below, but for those of a loop."""
    match node.WhichOneof("kind"):
        case "select_expr":
            yield node.select_expr.operand
        case "call_expr":
            if node.call_expr.HasField("target"):
                yield node.call_expr.target
            yield from node.call_expr.args
        case "list_expr":
            yield from node.list_expr.elements
        case "struct_expr":
            for entry in node.struct_expr.entries:
                if entry.HasField("map_key"):
                    yield entry.map_key
                yield entry.value


def constant(node: Node) -> object:
    """Return the text, number or truth value that the node is, as it stands; None: it is none."""
    if not node.HasField("const_expr") or (kind := node.const_expr.WhichOneof("kind")) is None:
        return None
    return None if kind == "null_value" else getattr(node.const_expr, kind)


def is_null(node: Node) -> bool:
    """Is it the word null?"""
    return bool(node.const_expr.WhichOneof("kind") == "null_value")


def variable(node: Node) -> str | None:
    """Return the name of the event's field that the node is; None for the variable of a loop, and all else.

    The checker writes the package before the names that it was told, and before no others.
    """
    package, _, name = node.ident_expr.name.partition(".")
    return name if package == PACKAGE and name else None


def path(node: Node) -> list[str]:
    """Return `["container", "mounts"]` for what stands so in the expression; else nothing."""
    fields: list[str] = []
    while node.HasField("select_expr"):
        fields.append(node.select_expr.field)
        node = node.select_expr.operand
    name = variable(node)
    return [name, *reversed(fields)] if name else []


def base(node: Node) -> Node:
    """Return what fields are selected of: the node itself, where none are."""
    while node.HasField("select_expr"):
        node = node.select_expr.operand
    return node


def is_compared_with_null(node: Node) -> bool:
    """Is it `X == null`, or `!=`, in either order?"""
    call = node.call_expr
    return call.function in ("_==_", "_!=_") and any(map(is_null, call.args))
