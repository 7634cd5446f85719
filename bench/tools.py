"""The C programs, and the files that are measured with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from startgate.bundles import make_bundle

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"


class Missing(Exception):
    """What a measurement needs is not here; the message says what."""


@cache
def program(name: str) -> Path:
    """Compile bench/NAME.c, statically, and return the program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source, output = HERE / f"{name}.c", BUILD / name
    if not output.exists() or output.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-static", "-o", output, source], check=True)
    return output


@cache
def runtime() -> Path:
    """Return the runc that is measured, by its real path."""
    found = shutil.which("runc")
    if found is None:
        raise Missing("runc is not installed")
    return Path(found).resolve()


class Bundle:
    """A bundle whose program tells its own first and last moment, and a place for its pid file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        rootfs = directory / "bundle/rootfs"
        root = {"root": {"path": str(rootfs)}}
        self.path = make_bundle(directory / "bundle", ["/bin/inside"], hostname="bench", config=root)
        self.program = rootfs / "bin/inside"
        shutil.copy(program("inside"), self.program)
        self.pids = directory / "pids"
        self.pids.mkdir()
        self.bundles = directory / "bundles"
        self.bundles.mkdir()


def load(count: int, *words: str | Path, log: Path | None = None) -> list[list[float]]:
    """Run bench/load.c; return the numbers of each line, nanoseconds. `log` gets what is printed."""
    command = [str(program("load")), str(count), *map(str, words)]
    with open(log or os.devnull, "ab") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: see {log}")
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def system_calls_of_a_run(bundle: Bundle) -> int:
    """Count the system calls of a `runc run`, its container's included. Raises Missing."""
    if not shutil.which("strace"):
        raise Missing("strace is not installed")
    counts = bundle.directory / "system-calls"
    command = ["strace", "-f", "-c", "-U", "calls", "-o", str(counts), str(runtime()), "run"]
    command += ["--bundle", str(bundle.path), "counted"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return int(counts.read_text().splitlines()[-1].split()[0])  # "CALLS total"


def numbers(*command: str | Path) -> list[float]:
    """Run a program that prints one number a line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(line) for line in done.stdout.splitlines()]


def exec_delays(probe: Path, count: int, arguments: Sequence[str]) -> list[float]:
    """Return how long each of `count` executions of the probe took, by its own clock."""
    return numbers(probe, str(count), *arguments)
