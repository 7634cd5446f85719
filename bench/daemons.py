"""Docker and Podman, private ones: their data in a directory of ours, no network, an image of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tools

IMAGE = "startgate-bench"
_PATIENCE = 120.0


def _root_file_system(bundle: tools.Bundle) -> bytes:
    return subprocess.run(
        ["tar", "-C", bundle.path / "rootfs", "-c", "."], stdout=subprocess.PIPE, check=True
    ).stdout


def _import(command: list[str], bundle: tools.Bundle) -> None:
    done = subprocess.run(
        [*command, "import", "-", IMAGE], input=_root_file_system(bundle), capture_output=True, check=False
    )
    if done.returncode:
        raise tools.Missing(f"{command[0]} import fails: {done.stderr.decode()[-200:]}")


@contextmanager
def docker(directory: Path, bundle: tools.Bundle) -> Iterator[list[str]]:
    """Run a dockerd; give the client's command. Raises Missing, with the reason."""
    daemon, client = shutil.which("dockerd"), shutil.which("docker")
    if not daemon or not client:
        raise tools.Missing("dockerd is not installed")
    socket, log = directory / "docker.sock", directory / "dockerd.log"
    command = [daemon, "--iptables=false", "--bridge=none", "-H", f"unix://{socket}"]
    command += ["--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")]
    command += ["--pidfile", str(directory / "docker.pid")]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        words = [client, "-H", f"unix://{socket}"]
        _wait_for(words, process, log)
        _import(words, bundle)
        yield words
    finally:
        process.terminate()
        process.wait()


def _wait_for(words: list[str], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while subprocess.run([*words, "version"], capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > until:
            raise tools.Missing(f"dockerd does not start: {log.read_text()[-300:]}")
        time.sleep(0.1)


def podman(directory: Path, bundle: tools.Bundle) -> list[str]:
    """Return the words that every podman command begins with. Raises Missing, with the reason."""
    program = shutil.which("podman")
    if not program:
        raise tools.Missing("podman is not installed")
    words = [program, "--root", str(directory / "root"), "--runroot", str(directory / "run")]
    words += ["--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime", str(tools.runtime())]
    words += ["--tmpdir", str(directory / "tmp")]
    _import(words, bundle)
    return words


def podman_run(words: list[str]) -> list[str]:
    """Return the command that runs a container; its limits are what root without capabilities can set."""
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    return [*words, "run", "--rm", "--network", "none", *limits, IMAGE, "/bin/inside"]


def docker_run(words: list[str]) -> list[str]:
    """Return the command that runs a container."""
    return [*words, "run", "--rm", "--network", "none", IMAGE, "/bin/inside"]


def status_of(line: str) -> str:
    """Return what an engine's event (JSON) is about: start, die, ... in Docker's words."""
    event = json.loads(line)
    word = event.get("status") or event.get("Status") or ""
    return {"died": "die"}.get(word, word)
