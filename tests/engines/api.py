"""Docker's API over its unix socket: what the client uses, without the cost of a client each time."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.kernel.support import PATIENCE


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=PATIENCE * 5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """Requests to a dockerd. Any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, method: str, path: str, body: Any = None) -> bytes:
        """Return the answer; fail if it tells of an error."""
        connection = _Connection(self._path)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {content.decode()}"
        return content

    def run(self, name: str, image: str, program: tuple[str, ...], cgroup: str) -> str:
        """Create and start a container; return its id.

        Without libnetwork: many ends at a time can deadlock it (20.10.24: the locks of the controller
        and of a network, taken by processEndpointDelete and getSvcRecords in opposite orders).
        """
        settings = {"Image": image, "Cmd": program, "Labels": {"load": name}, "NetworkDisabled": True}
        settings |= {"HostConfig": {"NetworkMode": "none", "CgroupParent": cgroup}}
        identity: str = json.loads(self("POST", f"/containers/create?name={name}", settings))["Id"]
        self("POST", f"/containers/{identity}/start")
        return identity

    def output(self, container: str) -> str:
        """Return what a container wrote; each piece has a header of eight bytes."""
        return self("GET", f"/containers/{container}/logs?stdout=1").decode(errors="replace")
