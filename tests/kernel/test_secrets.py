"""What must be in no event and no log line: the values of environment variables."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import PATIENCE, Runtime, eventually, types

pytestmark = pytest.mark.portable

SECRET = "hunter2-do-not-tell"


def test_environments_are_in_no_event_and_no_log(
    source: str,
    runtime: Runtime,
    bundle: Path,
    name: str,
    tmp_path: Path,
    watching: Watching,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not that of the container, of an `exec` by options or by file, nor the runtime's own."""
    caplog.set_level(logging.DEBUG)
    document = json.loads((bundle / "config.json").read_text())
    process = document["process"] | {
        "args": ["/bin/sleep", "1000"],
        "env": [f"PASSWORD={SECRET}", "PATH=/bin"],
    }
    write_config(bundle, [], config={"process": process})
    exec_file = tmp_path / "process.json"
    exec_file.write_text(json.dumps(process | {"args": ["/bin/true"]}))
    with watching({"started": lambda event: None}, exec_records=source) as watched:
        runtime("run", "--detach", "-b", str(bundle), name, detached=True)
        watched.wait_for("started", name)
        runtime("exec", "--env", f"PASSWORD={SECRET}", name, "/bin/true")
        runtime("exec", "--process", str(exec_file), name)
        runtime("kill", name, "KILL")
        watched.wait_for("stopped", name)
        assert eventually(lambda: types(watched.events).count("exec") == 2, PATIENCE)
    runtime("delete", "-f", name)
    told = b"\n".join(event.to_json() for event in watched.events)
    assert b"/bin/sleep" in told
    assert b"/bin/true" in told
    assert SECRET.encode() not in told
    assert "PASSWORD" not in told.decode()
    assert SECRET not in caplog.text
