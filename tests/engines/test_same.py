"""What people see of an engine is the same with startgate watching as without it."""

from __future__ import annotations

import re

from tests.engines.engine import DockerLike
from tests.engines.observe import observing

SESSION = (
    ("run --rm bb", "echo out; echo err >&2; exit 5"),
    ("run -d --name same bb", "trap 'exit 6' TERM; while :; do sleep 0.05; done"),
    ("run --name same bb", "true"),
    ("exec same", "echo out; echo err >&2; exit 3"),
    ("exec same /no/such/program", None),
    ("exec -w /no/such/directory same true", None),
    ("exec nobody true", None),
    ("run --rm --user nobody-knows bb true", None),
    ("run --rm -w /etc/passwd bb true", None),
    ("run --rm --read-only bb touch /x", None),
    ("run --rm bb /no/such/program", None),
    ("run --rm -v /etc:/proc/etc bb true", None),
    ("restart -t 10 same", None),
    ("stop -t 10 same", None),
    ("exec same true", None),
    ("start same", None),
    ("kill -s KILL same", None),
    ("wait same", None),
    ("rm same", None),
    ("rm same", None),
    ("start same", None),
)


def session(engine: DockerLike) -> list[tuple[str, int, str, str]]:
    """Run the commands; return each with its exit code, output and errors."""
    seen = []
    for line, script in SESSION:
        command, *rest = line.split()
        if command == "run":
            rest = [*engine.network, *engine.options, *rest]
        program = ["/bin/sh", "-c", script] if script else []
        done = engine(command, *rest, *program, check=False)
        seen.append((line, done.returncode, comparable(done.stdout), comparable(done.stderr)))
    return seen


def comparable(text: str) -> str:
    """Return an engine's words without what differs each time: ids, directories, times.

    Docker's client, when a start fails, says or does not say that its waiting was cancelled:
    two threads of it race, with startgate and without.
    """
    text = re.sub(r'time="[^"]*" level=error msg="error waiting for container: context canceled"\n', "", text)
    text = re.sub(r'time="[^"]*" ', "", text)
    text = re.sub(r"\b(overlay2?)/\w+", r"\1/DIRECTORY", text)
    return re.sub(r"\b[0-9a-f]{64}\b", "ID", text)


def test_a_session(engine: DockerLike) -> None:
    """Outputs, messages and exit codes, of what works and of what fails."""
    alone = session(engine)
    with observing(engine, seconds=0):
        assert session(engine) == alone
    codes = {line: code for line, code, _, _ in alone}
    assert (
        codes["run --rm bb"] == 5 and codes["exec same"] == 3 and codes["run --rm bb /no/such/program"] == 127
    )
