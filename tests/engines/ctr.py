"""`ctr`: containerd's own client, in a containerd namespace of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.engines.containerd import IMAGE, Containerd
from tests.engines.engine import Done, Listed
from tests.kernel.support import eventually


class Ctr:
    """An Engine (see engine.py): the containers of one containerd namespace."""

    reports = "containerd"

    def __init__(self, containerd: Containerd, namespace: str) -> None:
        self._containerd = containerd
        self._namespace = namespace
        self.directory = containerd.directory / f"of-{namespace}"
        self.directory.mkdir()
        self.title = f"{containerd.title}, ctr"
        self._codes: dict[str, int] = {}
        """How foreground commands ended: as their containers. containerd 2.4's journal misses such exits."""

    def __call__(self, *arguments: str, check: bool = True) -> Done:
        """Run a `ctr` command."""
        return self._containerd.ctr(*arguments, namespace=self._namespace, check=check)

    def run(self, name: str, *program: str, given: Sequence[str] = (), check: bool = False) -> Done:
        """``run`` a program in a container, with `given` options."""
        arguments = ["run", *self._log(name), *self._standard(), *given, IMAGE, name, *program]
        done = self(*arguments, check=check)
        if "--detach" not in given:
            self._codes[name] = done.returncode
        return done

    def create(self, name: str, *program: str, given: Sequence[str] = ()) -> None:
        """``containers create``."""
        self("containers", "create", *self._standard(), *given, IMAGE, name, *program)

    def start(self, name: str, *, check: bool = True) -> Done:
        """``tasks start``."""
        done = self("tasks", "start", *self._log(name), name, check=check)
        self._codes[name] = done.returncode
        return done

    def remove(self, name: str) -> None:
        """Remove a container, whatever it does."""
        self("tasks", "delete", "--force", name, check=False)
        self("containers", "delete", name, check=False)

    def pid(self, name: str) -> int:
        """Return the host pid of a container's init."""
        lines = self("tasks", "list").stdout.splitlines()[1:]
        return next(int(line.split()[1]) for line in lines if line.split()[0] == name)

    def containers(self) -> list[Listed]:
        """See Engine."""
        return [self.find(name) for name in self("containers", "list", "--quiet").stdout.split()]

    def find(self, name: str) -> Listed:
        """Return one container by its name. Its exit code is there once its end is in the journal."""
        told = json.loads(self("containers", "info", name).stdout)
        code = self._codes.get(name, self._containerd.exit_code(name, self._namespace))
        return Listed(
            id=told["ID"],
            name=told["ID"],
            image=told["Image"],
            exit_code=code,
            labels=told["Labels"],
            running=code is None,
        )

    def output(self, container: str) -> str:
        """See Engine."""
        return self._output(container).read_text()

    def started(self, since: float) -> Counter[str]:
        """Return how often each container was started since then."""
        return self._containerd.started(self._namespace, since)

    def _log(self, name: str) -> list[str]:
        return ["--log-uri", f"file://{self._output(name)}"]

    def _output(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _standard(self) -> list[str]:
        return ["--snapshotter", self._containerd.snapshotter]

    def stop(self) -> None:
        """Remove all containers; fail if one can't be."""
        for name in self("containers", "list", "--quiet").stdout.split():
            self.remove(name)
        assert eventually(lambda: not self("containers", "list", "--quiet").stdout)
