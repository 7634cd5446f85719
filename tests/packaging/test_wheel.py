"""The wheel, built as users get it. Installed, in bare roots: `make test-wheel`."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import hatch_build
import msgspec
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from startgate import Event, Watcher


def seen(event: Event) -> None:
    if event.container and event.container.pid:
        print(event.container.id, event.container.pid + 1)


watcher = Watcher()
watcher.on("created")(seen)
"""


def build(directory: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def interpreter(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment's, with the wheel and msgspec in it and no more: no index is asked."""
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    (site,) = directory.glob("lib/python3.*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    shutil.copytree(Path(msgspec.__file__).parent, site / "msgspec")
    return directory / "bin/python"


def test_it_is_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()


def test_an_index_takes_its_tag(wheel: Path) -> None:
    assert "-py3-none-manylinux_2_" in wheel.name and wheel.name.endswith(f"_{platform.machine()}.whl")


def test_what_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    native = f"startgate/_native/lib.{platform.machine()}"
    assert {"startgate/py.typed", f"{native}/libstartgate-bpf.so", f"{native}/libbpf.so.1"} <= names
    assert any(name.endswith(".dist-info/sboms/libraries.cdx.json") for name in names)
    assert any(name.endswith("licenses/packaging/licences/NOTICE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def checked(program: str, interpreter: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "program.py"
    file.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(directory)]
    command += ["--python-executable", str(interpreter), str(file)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_a_users_program_is_checked_against_its_types(interpreter: Path, tmp_path: Path) -> None:
    done = checked(PROGRAM, interpreter, tmp_path)
    assert done.returncode == 0, done.stdout
    wrong = checked(PROGRAM.replace("pid + 1", "pid + 'one'"), interpreter, tmp_path)
    assert "Unsupported operand types" in wrong.stdout


def test_without_the_marker_it_would_not_be(interpreter: Path, tmp_path: Path) -> None:
    (marker,) = interpreter.parents[1].glob("lib/python3.*/site-packages/startgate/py.typed")
    marker.rename(away := marker.with_suffix(".away"))
    try:
        assert "py.typed marker" in checked(PROGRAM, interpreter, tmp_path).stdout
    finally:
        away.rename(marker)


def test_where_it_is_built_makes_no_difference(tmp_path: Path) -> None:
    """A BPF object names its source."""
    objects = []
    for place in ("one", "another/place"):
        sources = shutil.copytree(ROOT / "bpf", tmp_path / place / "bpf")
        hatch_build.compile_bpf(sources / "exec_record.bpf.c", tmp_path / place / "out/object", "x86")
        objects.append((tmp_path / place / "out/object").read_bytes())
    assert objects[0] == objects[1]
