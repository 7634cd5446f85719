from __future__ import annotations

from pathlib import Path

import pytest

from startgate.runtimes import places
from startgate.runtimes.places import NAMES, Places


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's root directory, with few places."""
    monkeypatch.setattr(places, "DIRECTORIES", ("/usr/bin", "/data/*/bin"))
    monkeypatch.setenv("PATH", "/usr/bin")
    (tmp_path / "usr/bin").mkdir(parents=True)
    return tmp_path


def below(host: Path, found: list[str]) -> list[str]:
    return sorted(path.removeprefix(str(host)) for path in found if path.startswith(f"{host}/"))


def test_directories_that_exist(host: Path) -> None:
    at = Places(str(host))
    assert below(host, at.directories([])) == ["/usr/bin"]
    (host / "data/v1/bin").mkdir(parents=True)
    (host / "data/current").symlink_to("v1")
    assert below(host, at.directories([])) == ["/data/v1/bin", "/usr/bin"]  # each by one name
    assert below(host, at.directories([f"{host}/opt/x/runtime"])) == ["/data/v1/bin", "/usr/bin"]


def test_every_level_is_watched(host: Path) -> None:
    """Trees are renamed into place at any height."""
    at = Places(str(host))
    assert below(host, at.to_watch([])) == ["/usr", "/usr/bin"]
    (host / "data/v1").mkdir(parents=True)
    assert below(host, at.to_watch([])) == ["/data", "/data/v1", "/usr", "/usr/bin"]
    assert str(host) in at.to_watch([])


def test_links_on_the_way_to_a_binary(host: Path) -> None:
    """Each link's directory is watched: there alternatives are switched."""
    (host / "usr/bin/runc").symlink_to("/etc/alternatives/runc")  # the host's, not ours
    (host / "etc/alternatives").mkdir(parents=True)
    (host / "etc/alternatives/runc").symlink_to("../../opt/one/runc")
    watched = [str(Path(path).resolve()) for path in Places(str(host)).to_watch([])]
    assert {str(host / "etc/alternatives"), str(host / "opt/one")} <= set(watched)


def test_links_in_a_circle(host: Path) -> None:
    (host / "usr/bin/runc").symlink_to("crun")
    (host / "usr/bin/crun").symlink_to("runc")
    assert below(host, Places(str(host)).to_watch([]))


def test_candidates(host: Path) -> None:
    found = list(Places(str(host)).candidates(["/none/strange"]))
    assert found[0] == "/none/strange"
    assert below(host, found) == sorted(f"/usr/bin/{name}" for name in NAMES)


def test_a_host_root_that_is_not_there() -> None:
    at = Places("/none")
    assert list(at.directories([])) == []
    assert at.on_host("/usr/bin") == "/none/usr/bin"
