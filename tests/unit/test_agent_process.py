"""`startgate agent` as a process: a spool goes in, the API comes out, and SIGKILL harms neither."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from startgate.client import Client, Unavailable
from startgate.journal.spool import Spool
from startgate.lines import line
from startgate.testing import make_event

pytest.importorskip("aiohttp")

STARTGATE = (sys.executable, "-c", "from startgate.cli import main; main()")
NUMBER = 300


@contextmanager
def agent(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = ["agent", "--spool", str(directory / "spool"), "--journal", str(directory / "journal")]
    environment = os.environ | {"RUNTIME_DIRECTORY": str(directory)}
    with subprocess.Popen([*STARTGATE, *words], env=environment) as process:
        try:
            wait_for(Client(str(directory / "api.sock")))
            yield process
        finally:
            process.kill()


def wait_for(client: Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.status()
            return
        except Unavailable:
            time.sleep(0.02)
    pytest.fail("the agent does not answer")


@pytest.mark.skipif(os.getuid() != 0, reason="the spool is root's")
def test_a_killed_agent_leaves_no_gap_and_no_double(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    client = Client(str(tmp_path / "api.sock"))
    got: list[int] = []

    def follow() -> None:
        events = client.events(after=f"{journal}-0", follow=True, limit=NUMBER)
        got.extend(received.event.sequence or 0 for received in events)

    with closing(Spool(str(tmp_path / "spool"))) as spool:

        def write(numbers: range) -> None:
            for number in numbers:
                assert spool.add(line(make_event("exec", id=f"c{number}"), number), number)

        with agent(tmp_path):
            write(range(1, 100))
            while not (status := client.status()).journal or status.journal.oldest is None:
                time.sleep(0.02)
            journal = status.journal.last.partition("-")[0]
            reading = threading.Thread(target=follow)
            reading.start()
            while status.clients < 2:
                status = client.status()
            write(range(100, 200))
        write(range(200, 250))  # nobody takes them now
        with agent(tmp_path) as second:
            write(range(250, NUMBER + 1))
            reading.join(60)
            assert "startgate_events_total" in client.metrics()
            second.terminate()
            assert second.wait(60) == 0
    assert got == list(range(1, NUMBER + 1))
    assert not (tmp_path / "api.sock").exists()
