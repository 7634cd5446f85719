"""Rules of the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src/startgate"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(file.relative_to(SOURCE)) for file in FILES]


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def imported(file: Path) -> set[str]:
    """Return the modules that a file names in its imports, those within functions too."""
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def loaded_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_the_sources_are_found() -> None:
    assert {"watcher.py", "kernel/libc.py", "runtimes/commandline.py"} <= set(NAMES)


def those(breaks: Callable[[Path], bool]) -> list[str]:
    """Return the names of the files that break a rule."""
    return [name for name, file in zip(NAMES, FILES, strict=True) if breaks(file)]


def test_only_the_kernel_package_talks_to_the_c_library() -> None:
    def talks(file: Path) -> bool:
        return file.parent.name != "kernel" and any(name.split(".")[0] == "ctypes" for name in imported(file))

    assert those(talks) == []


def test_no_file_is_long() -> None:
    assert those(lambda file: len(file.read_text().splitlines()) > 350) == []


def test_only_the_command_line_prints_or_exits() -> None:
    forbidden = {"print", "sys.exit", "exit", "os._exit", "sys.stdout.write", "sys.stderr.write"}

    def speaks(file: Path) -> bool:
        calls = {ast.unparse(node.func) for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)}
        return file.parent.name != "cli" and bool(calls & forbidden)

    assert those(speaks) == []


PURE = ("lenient", "options", "words")


@pytest.mark.parametrize(
    "name",
    [
        "errors.py",
        "runtimes/signals.py",
        "runtimes/commandline.py",
        *(f"runtimes/{name}.py" for name in PURE),
    ],
)
def test_pure_modules_import_nothing_of_the_kernel(name: str) -> None:
    ours = {module for module in imported(SOURCE / name) if module.startswith("startgate")}
    allowed = tuple(f"startgate.runtimes.{module}" for module in PURE)
    assert all(module == "startgate.runtimes" or module.startswith(allowed) for module in ours)


@pytest.mark.parametrize("module", ["startgate", "startgate.watcher", "startgate.client"])
def test_a_watcher_loads_no_more_than_it_needs(module: str) -> None:
    assert not loaded_by(module) & {
        "rich",
        "cel_expr_python",
        "google.protobuf",
        "asyncio",
        "pydantic",
        "aiohttp",
        "prometheus_client",
        "sqlite3",
        "click",
        "typer",
    }


def test_who_holds_loads_nothing_of_the_journal_but_its_spool() -> None:
    loaded = loaded_by("startgate.agent.worker") | loaded_by("startgate.cli.watch")
    ours = {name for name in loaded if name.startswith("startgate.journal.")}
    assert ours == {"startgate.journal.spool", "startgate.journal.times"} and "sqlite3" not in loaded


def test_the_kernel_package_knows_nothing_of_the_rest() -> None:
    modules = {name for file in (SOURCE / "kernel").glob("*.py") for name in imported(file)}
    ours = {name for name in modules if name.startswith("startgate.")}
    assert all(name.startswith(("startgate.kernel", "startgate.errors")) for name in ours)


NAMED_TWICE = {
    *("Config", "Containers", "Database", "Programs", "Resources", "Row", "Running", "Said", "Start"),
    *("Table", "Watch"),
}
"""To be renamed: who adds one here makes readers ask which is meant."""


def test_a_class_has_a_name_of_its_own() -> None:
    names = Counter(
        node.name
        for file in FILES
        for node in parsed(file).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} == NAMED_TWICE
