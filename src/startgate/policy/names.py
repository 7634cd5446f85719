"""Which names a CEL expression uses. Pure.

The CEL library tells the first names only, and those of macros among them. What a rule asks
of `container` decides at which gate it can be judged, and lets a misspelt field be found
when the rule is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# The lexis of the CEL specification: comments, strings (raw ones too), names, all else by the character.
_TOKEN = re.compile(
    r"""//[^\n]* | [rRbB]{0,2}(?:\"{3}.*?\"{3} | '{3}.*?'{3})
    | [rR][bB]?"[^"\n]*" | [rR][bB]?'[^'\n]*' | [bB][rR]"[^"\n]*" | [bB][rR]'[^'\n]*'
    | [bB]?"(?:\\.|[^"\\\n])*" | [bB]?'(?:\\.|[^'\\\n])*'
    | [0-9][0-9A-Za-z.]* | [A-Za-z_]\w* | \S""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_CONSTANTS = frozenset({"true", "false", "null", "in"})
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_BUILDERS = frozenset({"map", "filter"})
"""Their results grow by copying."""
_LIBRARIES = frozenset({"math", "sets", "lists", "strings", "base64"})


@dataclass(frozen=True, slots=True)
class References:
    """The names of an expression."""

    variables: frozenset[str]
    """Without those that a macro introduces."""
    functions: frozenset[str]
    """Without their receivers; those of a library with its name: `sets.contains`."""
    fields: dict[str, frozenset[str] | None] = field(default_factory=dict)
    """For each variable the fields that are asked for; None: it is used as a whole."""
    degree: int = 0
    """Evaluating takes a collection's size to this power."""


def references(expression: str) -> References:
    """Return the names that an expression uses."""
    tokens = [token for token in _TOKEN.findall(expression) if not token.startswith("//")]
    bound = set(_bound(tokens))
    variables: set[str] = set()
    functions: set[str] = set()
    fields: dict[str, set[str] | None] = {}
    for at, token in enumerate(tokens):
        if not _NAME.match(token) or token in _CONSTANTS:
            continue
        after = tokens[at + 1 : at + 4]
        if after[:1] == ["("]:
            functions.add(_qualified(tokens, at))
        elif (at == 0 or tokens[at - 1] != ".") and token not in bound | _LIBRARIES:
            variables.add(token)
            _add_field(fields, token, after)
    return References(
        frozenset(variables),
        frozenset(functions),
        {name: None if asked is None else frozenset(asked) for name, asked in fields.items()},
        _degree(tokens, variables),
    )


def _degree(tokens: list[str], variables: set[str]) -> int:
    """Loops within loops count, and variables within loops: the library copies their values."""
    degree, open_loops = 0, [0]
    for at, word in enumerate(tokens):
        if word == "(":
            macro = tokens[at - 1] if at >= 2 and tokens[at - 2] == "." else ""
            if macro in _MACROS:
                degree = max(degree, open_loops[-1] + (2 if macro in _BUILDERS else 1))
            open_loops.append(open_loops[-1] + (macro in _MACROS))
        elif word == ")" and len(open_loops) > 1:
            open_loops.pop()
        elif word in variables and tokens[at - 1] != "." and open_loops[-1]:
            degree = max(degree, open_loops[-1] + 1)
    return degree


def _bound(tokens: list[str]) -> Iterator[str]:
    """Yield the names that macros introduce: `list.exists(NAME, ...)`."""
    for at in range(len(tokens) - 4):
        if (
            tokens[at] == "."
            and tokens[at + 1] in _MACROS
            and tokens[at + 2] == "("
            and tokens[at + 4] == ","
        ):
            yield tokens[at + 3]


def _qualified(tokens: list[str], at: int) -> str:
    if at >= 2 and tokens[at - 1] == "." and tokens[at - 2] in _LIBRARIES:
        return f"{tokens[at - 2]}.{tokens[at]}"
    return tokens[at]


def _add_field(fields: dict[str, set[str] | None], name: str, after: list[str]) -> None:
    known = fields.setdefault(name, set())
    asks = len(after) >= 2 and after[0] == "." and _NAME.match(after[1]) and after[2:] != ["("]
    if not asks:
        fields[name] = None
    elif known is not None:
        known.add(after[1])
