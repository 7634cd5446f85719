"""The binaries that engines are told to use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from startgate.runtimes.configured import binaries

V2 = """
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
    BinaryName = "/usr/local/nvidia/toolkit/nvidia-container-runtime"
"""
V3 = """
version = 3
imports = ["more/*.toml"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]
  BinaryName = '/opt/crun'
"""


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, []),
        (
            {"etc/docker/daemon.json": '{"runtimes": {"a": {"path": "/opt/a"}, "b": {"path": "b"}}}'},
            ["/opt/a"],
        ),
        (
            {
                "etc/docker/daemon.json": '{"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2", '
                '"options": {"BinaryName": "/opt/a"}}}}'
            },
            ["/opt/a"],
        ),
        ({"etc/containerd/config.toml": V2}, ["/usr/local/nvidia/toolkit/nvidia-container-runtime"]),
        (
            {"etc/containerd/config.toml": V3, "etc/containerd/more/x.toml": V2},
            ["/opt/crun", "/usr/local/nvidia/toolkit/nvidia-container-runtime"],
        ),
        ({"etc/containerd/config.toml": 'imports = ["config.toml", "/etc/containerd/*.toml"]'}, []),
        ({"var/lib/rancher/k3s/agent/etc/containerd/config.toml": 'a.BinaryName = "/k3s/r"'}, ["/k3s/r"]),
        (
            {
                "etc/containers/containers.conf": '[engine]\nconmon_path = ["/opt/conmon"]\n'
                '[engine.runtimes]\nkrun = ["/opt/krun", "/usr/bin/krun"]',
                "etc/containers/containers.conf.d/a.conf": '[engine.runtimes]\nyouki = ["/opt/youki"]',
            },
            ["/opt/krun", "/usr/bin/krun", "/opt/conmon", "/opt/youki"],
        ),
        (
            {
                "etc/crio/crio.conf.d/10-x": '[crio.runtime]\nconmon = "/opt/conmon"\n'
                '[crio.runtime.runtimes.a]\nruntime_path = "/opt/a"\nmonitor_path = "/opt/m"'
            },
            ["/opt/conmon", "/opt/a", "/opt/m"],
        ),
        ({"etc/docker/daemon.json": "{", "etc/containerd/config.toml": "= ="}, []),
        ({"etc/docker/daemon.json": '{"runtimes": {"a": 1, "b": {"path": 2}}}'}, []),
        ({"etc/containers/containers.conf": '[engine.runtimes]\na = "x"\nb = [1]'}, []),
    ],
)
def test_what_is_named(tmp_path: Path, files: dict[str, str], found: list[str]) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert binaries(str(tmp_path)) == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    for name in ("docker/daemon.json", "containerd/config.toml", "containers/containers.conf"):
        path = tmp_path / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert binaries(str(tmp_path)) == []


@pytest.mark.parametrize("path", [r"/opt/a\u0000b", r"/opt/\ud800"])
def test_what_can_be_no_path(tmp_path: Path, path: str) -> None:
    """To open it raises ValueError: the watcher did not start."""
    file = tmp_path / "etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"runtimes": {{"a": {{"path": "{path}"}}, "b": {{"path": "/opt/runc"}}}}}}')
    assert binaries(str(tmp_path)) == ["/opt/runc"]
