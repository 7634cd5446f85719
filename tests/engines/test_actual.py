"""What the kernel says of real engines' containers: nothing that was not asked for, and all that was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from startgate.events import Actual, Container
from tests.engines.engine import DockerLike
from tests.kernel.support import Watching
from tests.kernel.test_actual import names_of


def built(
    engine: DockerLike, name: str, given: Sequence[str], watching: Watching
) -> tuple[Actual, Container]:
    with watching(actual=True, hold_timeout=20) as watched:
        done = engine.run(name, "/bin/true", given=given)
        assert done.returncode == 0, done.stderr
        id = engine.find(name).id
        watched.wait_for("stopped", id)
        created = watched.wait_for("created", id).container
    engine("rm", "--force", name)
    assert created and created.actual
    return created.actual, created


ORDINARY: dict[str, Sequence[str]] = {
    "default": (),
    "a user": ("--user", "1234:1234"),
    "read-only": ("--read-only", "--tmpfs", "/tmp"),
    "no capabilities": ("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    "powerful": ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"),
    "of the host": ("--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"),
    "a mount": ("-v", "PLACES:/data:ro"),
    "a device": ("--device", "/dev/fuse"),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_it_is_what_was_asked_for(
    engine: DockerLike, name: str, tmp_path: Path, watching: Watching, case: str
) -> None:
    given = [word.replace("PLACES", str(tmp_path)) for word in ORDINARY[case]]
    actual, container = built(engine, name, given, watching)
    assert actual.differs == ()
    assert actual.host_namespaces == container.host_namespaces
    assert actual.bounding_capabilities == tuple(
        each for each in actual.bounding_capabilities if each in container.bounding_capabilities
    )
    paths = {path for destination, path in names_of(actual) if destination == "/data"}
    assert paths == ({str(tmp_path)} if case == "a mount" else set())
    assert not {"/", "/etc", "/usr", None} & {mount.host_path for mount in actual.host_mounts}
    if case == "powerful":
        assert "CAP_SYS_ADMIN" in actual.bounding_capabilities
        assert actual.seccomp == "disabled"
    if case == "a user":
        assert actual.uid == 1234


def test_a_volume_that_is_a_directory_of_the_host(engine: DockerLike, name: str, watching: Watching) -> None:
    """config.json names a directory of the engine's, as of any other volume; it is not believed."""
    options = [word for option in ("type=none", "o=bind", "device=/etc") for word in ("--opt", option)]
    engine("volume", "create", *options, name)
    actual, container = built(engine, name, ("-v", f"{name}:/data"), watching)
    engine("volume", "rm", "--force", name)
    assert [mount.resolved for mount in container.mounts if mount.destination == "/data"] == ["/etc"]
    assert "/etc" in {mount.host_path for mount in actual.host_mounts if mount.destination == "/data"}
    assert actual.differs == ()
