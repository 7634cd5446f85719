"""The sides that are compared: who listens while something is measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import tools

from startgate.errors import KernelUnsupported
from startgate.kernel import features
from startgate.records import SOURCES

_PATIENCE = 60 * float(os.environ.get("STARTGATE_TEST_SLOWNESS", "1"))


class Line(NamedTuple):
    """What a listener printed, and when: CLOCK_MONOTONIC, nanoseconds."""

    when: int
    text: str


@dataclass
class Listening:
    """A listener at work, or nobody."""

    name: str
    pid: int | None = None
    ready_after: float = 0.0
    """Seconds from its execution until it said that it watches."""
    output: Path | None = None

    def lines(self) -> list[Line]:
        """Return what it has printed so far, but for a last line without its end."""
        text = self.output.read_text(errors="replace") if self.output else ""
        split = (line.partition(" ") for line in text.split("\n")[:-1])
        return [Line(int(when), rest) for when, _, rest in split]

    def wait_for(self, count: int, wanted: Callable[[str], object], *, after: int = 0) -> list[Line]:
        """Wait until `count` lines after the first `after` are as wanted, and return those.

        Raises TimeoutError.
        """
        until = time.monotonic() + _PATIENCE
        while len(found := [line for line in self.lines()[after:] if wanted(line.text)]) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(found)} of {count} lines came")
            time.sleep(0.02)
        return found


class Side(Protocol):
    """Somebody who listens, or nobody."""

    name: str

    def listening(self) -> AbstractContextManager[Listening]:
        """Listen for the length of a block; from its first moment on, all is seen."""


class Nothing:
    """Nobody listens."""

    name = "nothing"

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See Side."""
        yield Listening(self.name)


class Floor:
    """bench/floor.c: reads and answers, with the marks that startgate would have."""

    name = "floor"

    def __init__(self, execs: Sequence[Path] = (), reads: Sequence[Path] = ()) -> None:
        """`execs` are files whose executions are held, `reads` directories with pid files."""
        marks = [("--exec", path) for path in execs] + [("--read", path) for path in reads]
        self._command = [str(tools.program("floor")), *(str(word) for mark in marks for word in mark)]

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See Side."""
        with process(self.name, self._command, "watching") as listening:
            yield listening


class Startgate:
    """`startgate watch --output json`, with each event's line timed as it comes."""

    def __init__(
        self,
        source: str,
        *arguments: str,
        name: str | None = None,
        checkout: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """`checkout` is another one, with its BPF object built, whose startgate is to be run. `prefix` is
        a command that executes the one that follows it."""
        self.name = name or f"startgate, {source}"
        self._environment = os.environ | ({"PYTHONPATH": str(checkout / "src")} if checkout else {})
        program = "from startgate.cli import main; main()"
        watch = ["watch", "--output", "json", "--exec-records", source]
        self._command = [*prefix, sys.executable, "-c", program, *watch, *arguments]

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See Side."""
        with process(self.name, self._command, "watching ", self._environment) as listening:
            yield listening


class Peer:
    """Any other watcher that prints a line for each container."""

    def __init__(self, command: str | Sequence[str], name: str = "peer", settle: float = 2.0) -> None:
        """`command` for a shell, or in words; `settle`: seconds until it watches, as it may not say so."""
        self.name = name
        self._command = ["/bin/sh", "-c", f"exec {command}"] if isinstance(command, str) else list(command)
        self._settle = settle

    @contextmanager
    def listening(self) -> Iterator[Listening]:
        """See Side."""
        with process(self.name, self._command, None) as listening:
            time.sleep(self._settle * max(1.0, _PATIENCE / 60))
            yield listening


@contextmanager
def process(
    name: str, command: list[str], ready: str | None, environment: Mapping[str, str] | None = None
) -> Iterator[Listening]:
    """Run a listener; its lines go through bench/stamp.c into a file: no Python in between."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile(dir=tools.BUILD) as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        listening = Listening(name, process.pid, output=Path(output.name))
        stamp = subprocess.Popen([tools.program("stamp")], stdin=process.stdout, stdout=output)
        assert process.stdout and process.stderr
        process.stdout.close()
        try:
            said = _wait_ready(process, ready) if ready else []
            listening.ready_after = time.monotonic() - began
            drain = threading.Thread(target=lambda: said.extend(process.stderr or ()))
            drain.start()
            yield listening
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended by itself: {said[-20:]}")
        finally:
            process.terminate()
            process.wait()
            stamp.wait()
    drain.join()
    process.stderr.close()


def _wait_ready(process: subprocess.Popen[bytes], ready: str) -> list[bytes]:
    said: list[bytes] = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith(ready.encode()):
            return said
    raise RuntimeError(f"{process.args!r} does not watch: {said[-20:]}")


def sources() -> dict[str, str]:
    """Each exec record source with "", or the reason why it can't be had here."""
    found = {}
    for name, source in SOURCES.items():
        group = features.open_group(report_tid=True)
        try:
            source(group).close()
            found[name] = ""
        except KernelUnsupported as error:
            found[name] = str(error)
        finally:
            group.close()
    return found
