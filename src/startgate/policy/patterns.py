"""Regular expressions (RE2): are they any, and how long do they take to be compiled?

The CEL library compiles a pattern each time that it is asked, while Python waits. Most take
some microseconds; `\\pL{100}` takes 90 milliseconds. Evaluating takes time in proportion to the text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

from startgate.policy import plain
from startgate.policy.syntax import Misuse, Node

_MODEL = "^/(etc|usr|var|run|proc|root|home|boot)/"
_LIMIT = 50
"""How many times longer than the model: some 0.3 ms. A ratio, as machines differ."""
_TRIES = 5


def check(patterns: Iterable[tuple[str, Node]], environment: Any) -> None:
    """Raises Misuse: it is no regular expression, or one that takes too long."""
    for pattern, node in patterns:
        program, limit = _asking(pattern, environment), _LIMIT * _of_model(environment)
        result = program.eval(environment.Activation({})).value()
        if not isinstance(result, bool):
            raise Misuse(plain.why(str(result)), node)
        # The least of several: a machine under load does not make a pattern a bad one.
        if all(_seconds(program, environment) > limit for _ in range(_TRIES)):
            raise Misuse("the pattern takes too long to be compiled: use fewer repetitions and classes", node)


def _asking(pattern: str, environment: Any) -> Any:
    return environment.compile(f'"".matches({json.dumps(pattern, ensure_ascii=False)})')


def _seconds(program: Any, environment: Any) -> float:
    activation = environment.Activation({})
    start = time.perf_counter()
    program.eval(activation)
    return time.perf_counter() - start


@cache
def _of_model(environment: Any) -> float:
    program = _asking(_MODEL, environment)
    return min(_seconds(program, environment) for _ in range(_TRIES))
