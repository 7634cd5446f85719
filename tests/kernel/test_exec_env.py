"""Who ran this exec: an id of the API server's audit log is in the event, whatever the command does."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, find_runtime, unavailable

pytestmark = pytest.mark.portable

NUMBER = 100
AUDIT, OPERATOR = "KUBERNETES_EXEC_AUDIT_ID", "SPO_EXEC_REQUEST_UID"
SCRIPT = f"unset {AUDIT} {OPERATOR}; exec /bin/sleep 0.1"


def test_overlapping_execs_are_told_apart(tmp_path: Path, name: str, watching: Watching) -> None:
    """Each way to give it a variable in turn; a hundred at a time, which all unset it at once."""
    runtime = find_runtime("crun") or find_runtime("runc")
    if runtime is None:
        unavailable("no runtime is installed")
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sleep", "1000"])
    (bundle / "rootfs/bin/env").symlink_to("busybox")
    process = json.loads((bundle / "config.json").read_text())["process"]
    audit_log = {f"request-{number}": f"user{number}" for number in range(NUMBER)}
    together = threading.Semaphore(0)  # all are held at once: the first is let go when the last has come
    with watching({"exec": lambda event: _meet(together)}) as watched:
        runtime("run", "--detach", "-b", str(bundle), name, detached=True)
        try:
            running = [
                runtime.popen("exec", *_given(number, request, user, process, tmp_path, name))
                for number, (request, user) in enumerate(audit_log.items())
            ]
            together.release(NUMBER)
            assert [execution.wait(PATIENCE * 3) for execution in running] == [0] * NUMBER
            events = watched.wait(lambda events: sum(event.type == "exec" for event in events) == NUMBER)
        finally:
            runtime("delete", "-f", name)
    processes = [event.process for event in events if event.type == "exec"]
    told = {user: id_ for each in processes if each for id_ in each.env.values() for user in each.argv[-1:]}
    assert told == {user: request for request, user in audit_log.items()}
    assert all(each and len(each.env) == 1 for each in processes)


def _meet(together: threading.Semaphore) -> None:
    together.acquire(timeout=1)


def _given(
    number: int, request: str, user: str, process: dict[str, object], directory: Path, name: str
) -> tuple[str, ...]:
    """Return the arguments of an exec with the request's id; the user's name is its command's last word."""
    command = ("/bin/sh", "-c", SCRIPT, user)
    match number % 3:
        case 0:
            file = directory / f"{number}.json"
            file.write_text(
                json.dumps(process | {"args": command, "env": ["PATH=/bin", f"{AUDIT}={request}"]})
            )
            return "--process", str(file), name
        case 1:
            return "--env", f"{AUDIT}={request}", name, *command
        case _:
            return name, "/bin/env", f"{OPERATOR}={request}", *command
