"""Rules of the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src/startgate"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(file.relative_to(SOURCE)) for file in FILES]


def imported(file: Path) -> set[str]:
    """Return the modules that a file names in its imports, those within functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
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


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_the_kernel_package_talks_to_the_c_library(file: Path) -> None:
    in_kernel = file.parent.name == "kernel"
    assert in_kernel or not any(name.split(".")[0] == "ctypes" for name in imported(file))


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_file_is_long(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 350


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_the_command_line_prints_or_exits(file: Path) -> None:
    if file.parent.name == "cli":
        return
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
    }
    assert not calls & {"print", "sys.exit", "exit", "os._exit", "sys.stdout.write", "sys.stderr.write"}


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


@pytest.mark.parametrize("module", ["startgate", "startgate.watcher"])
def test_a_watcher_loads_no_more_than_it_needs(module: str) -> None:
    assert not loaded_by(module) & {
        "rich",
        "cel_expr_python",
        "google.protobuf",
        "asyncio",
        "pydantic",
        "click",
        "typer",
    }


def test_the_kernel_package_knows_nothing_of_the_rest() -> None:
    modules = {name for file in (SOURCE / "kernel").glob("*.py") for name in imported(file)}
    ours = {name for name in modules if name.startswith("startgate.")}
    assert all(name.startswith(("startgate.kernel", "startgate.errors")) for name in ours)
