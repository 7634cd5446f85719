"""Do the unit tests notice? Changes one small thing at a time, and runs the tests that execute it.

``make mutants``: nothing is written but build/mutants/, where it is kept which test executes which line.
What survives is printed with its place: a decision that no test states. Some can't matter; most are a test's.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from itertools import repeat
from pathlib import Path
from types import CodeType
from typing import NamedTuple, cast

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/startgate"
CACHE = ROOT / "build/mutants"
HEART = (
    *("gates/created.py", "gates/creating.py", "gates/rootless.py", "gates/existing.py", "gates/failure.py"),
    *(
        "lifecycle.py",
        "passage.py",
        "hold.py",
        "gates/ends.py",
        "gates/begin.py",
        "gates/spare.py",
        "gates/untold.py",
        "gates/program.py",
    ),
    *("gates/command.py", "gates/repeats.py", "gates/turns.py", "gates/inits.py", "runtimes/commandline.py"),
    *("runtimes/describe.py", "keeper/group.py", "keeper/protocol.py", "policy/verdict.py"),
)
_TESTS = 150
"""How many are run for one mutant."""
_LEAST, _TIMES, _LONGEST = 20.0, 5, 600.0
"""A mutant's tests may take so many seconds, or so many times as long as those of its file do unchanged."""
_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn, ast.Lt: ast.LtE, ast.Gt: ast.GtE},
    **{ast.NotEq: ast.Eq, ast.IsNot: ast.Is, ast.NotIn: ast.In, ast.LtE: ast.Lt, ast.GtE: ast.Gt},
}


class Mutant(NamedTuple):
    """One change of a file."""

    file: str
    line: int
    before: str
    after: str
    tree: ast.Module


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Yield all changes of a file's source that are tried."""
    tree = ast.parse(source)
    for node in _executed(tree):
        for new in _changes(node):
            yield Mutant(file, node.lineno, _text(node), _text(new), _with(tree, node, new))  # type: ignore[attr-defined]


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what decides: no annotations, no log lines, no limits and durations of a module."""
    yield node
    if isinstance(node, ast.Module):
        for child in node.body:
            if not isinstance(child, ast.Assign | ast.AnnAssign):
                yield from _executed(child)
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_aside(child):
                yield from _executed(child)


def _is_aside(node: ast.AST) -> bool:
    text = ast.unparse(node) if isinstance(node, ast.Expr | ast.If) else ""
    return text.startswith(("log.", "if TYPE_CHECKING"))


def _changes(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901
    match node:
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, ast.Compare | ast.UnaryOp):
            changed = copy.copy(node)
            changed.test = ast.UnaryOp(ast.Not(), node.test)
            yield changed
        case ast.Compare(ops=[operator]) if type(operator) in _SWAPPED:
            yield ast.Compare(node.left, [_SWAPPED[type(operator)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as number):
            yield ast.Constant(number + 1)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(None)
        case (
            ast.Expr(value=ast.Call() | ast.Yield())
            | ast.Raise()
            | ast.AugAssign()
            | ast.Delete()
            | ast.Continue()
        ):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def _with(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    """Return a copy of the tree in which `new` is in the place of `old`."""

    class Put(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is old:
                return ast.copy_location(new, old)
            changed = copy.copy(node)
            for name, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(changed, name, [self.visit(v) if isinstance(v, ast.AST) else v for v in value])
                elif isinstance(value, ast.AST):
                    setattr(changed, name, self.visit(value))
            return changed

    return ast.fix_missing_locations(cast(ast.Module, Put().visit(tree)))


def _text(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(ast.copy_location(node, node))).splitlines()[0]


# Which tests execute a line


Covering = dict[str, dict[int, list[str]]]
"""File, line, the tests that execute it; line 0: that execute anything of the file."""


def covering(tests: list[str]) -> Covering:
    """Run the tests once, and see; unless that was done since the last change."""
    everything = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("tests/unit/*.py")])
    digest = hashlib.sha256(
        b"".join(file.read_bytes() for file in everything) + repr(tests).encode()
    ).hexdigest()
    kept = CACHE / "covering.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["of"] == digest:
        return {file: {int(n): names for n, names in lines.items()} for file, lines in found["lines"].items()}
    print("running the tests once, to see which executes what", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "coverage"
        environment = os.environ | {"COVERAGE_FILE": str(data), "COVERAGE_CORE": "ctrace"}
        options = ["--cov=startgate", "--cov-context=test", "--cov-report=", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-q", "-x", *options, *tests]
        if subprocess.run(command, env=environment, check=False).returncode:
            raise SystemExit("the unit tests fail as it is")
        lines = _read_contexts(data)
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"of": digest, "lines": lines}))
    return lines


def _read_contexts(data: Path) -> Covering:
    from coverage import CoverageData

    read = CoverageData(str(data))
    read.read()
    found: Covering = {}
    for path in read.measured_files():
        lines = {
            line: sorted({context.rpartition("|")[0] for context in contexts if "|" in context})
            for line, contexts in read.contexts_by_lineno(path).items()
        }
        every = sorted({name for names in lines.values() for name in names})
        found[str(Path(path).relative_to(PACKAGE))] = {**lines, 0: every}
    return found


def chosen(names: Iterable[str], seed: int) -> list[str]:
    """Return those that are run: of each test function some parameters, where there are too many."""
    turns: dict[str, int] = {}
    ranked, ordered = [], sorted(names)
    for name in random.Random(seed).sample(ordered, len(ordered)):
        function = name.partition("[")[0]
        turns[function] = turns.get(function, 0) + 1
        ranked.append((turns[function], name))
    return [name for _, name in sorted(ranked)[:_TESTS]]


# Trying one


def survives(mutant: Mutant, names: list[str], limit: float = _LONGEST) -> bool:
    """Do the tests pass with it? In a process of its own, that is forked from one which has pytest loaded."""
    child = os.fork()
    if not child:
        _be_the_child(mutant, names)
    until = time.monotonic() + limit
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False  # somebody would notice
        time.sleep(0.01)


def _be_the_child(mutant: Mutant, names: list[str]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # what a loop may take of the host
        silent = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(silent, fd)
        _serve(str(PACKAGE / mutant.file), mutant.tree)
        import pytest

        quiet = ["-p", "no:cacheprovider", "-p", "no:cov", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = pytest.main(["-x", "-q", *quiet, *names])
    finally:
        os._exit(code)


def _serve(path: str, tree: ast.Module) -> None:
    """Let whoever imports the file get what the tree says."""
    get_code = SourceFileLoader.get_code

    def changed(self: SourceFileLoader, name: str) -> CodeType | None:
        if os.path.realpath(self.path) == os.path.realpath(path):
            return compile(tree, path, "exec", dont_inherit=True)
        return get_code(self, name)

    SourceFileLoader.get_code = changed  # type: ignore[method-assign, assignment]


def main() -> None:
    """Try them all, or some; print what survives."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument(
        "files", nargs="*", default=list(HEART), help="below src/startgate; the heart's by default"
    )
    ask.add_argument("--sample", type=int, default=20, help="of each file so many (0: all)")
    ask.add_argument("--tests", nargs="+", default=["tests/unit"], help="those that may notice")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--least", type=int, default=0, help="fail below so many percent that are noticed")
    given = ask.parse_args()
    os.chdir(ROOT)
    os.nice(19)
    tests = covering(given.tests)
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    dead = tried = 0
    for file in given.files:
        every = list(mutants(file, (PACKAGE / file).read_text()))
        some = random.Random(given.seed).sample(every, min(given.sample or len(every), len(every)))
        began, alive = time.monotonic(), []
        unchanged = Mutant(file, 0, "", "", ast.parse((PACKAGE / file).read_text()))
        if not survives(unchanged, chosen(tests[file][0], given.seed)):
            raise SystemExit(f"{file}: its tests fail here as it is")
        limit = max(_LEAST, _TIMES * (time.monotonic() - began))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            lines = tests.get(file, {})
            names = [chosen(lines.get(m.line) or lines.get(0, []), given.seed) for m in some]
            for mutant, survived in zip(some, pool.map(survives, some, names, repeat(limit)), strict=True):
                if survived:
                    alive.append(mutant)
        for mutant in sorted(alive, key=lambda m: m.line):
            print(f"  src/startgate/{file}:{mutant.line}: {mutant.before}  ->  {mutant.after}")
        dead, tried = dead + len(some) - len(alive), tried + len(some)
        print(
            f"{file}: {len(some) - len(alive)} of {len(some)} noticed, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    print(f"{dead} of {tried} noticed: {100 * dead // max(1, tried)} %")
    if 100 * dead < given.least * tried:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
