"""The examples, as far as they need no kernel: tests/kernel/test_examples.py runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from startgate import CgroupId, Container, Deny, Kubernetes
from startgate.testing import make_event

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


LIST = """
docker.io/library/*   # Docker's own
registry.example/shop/web:1
"""


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"image": "nginx", "image_reference": "docker.io/library/nginx:latest"}, False),
        ({"image_reference": "registry.example/shop/web:1"}, False),
        ({"image_reference": "registry.example/shop/web:2"}, True),
        ({"image_reference": "evil.example/docker.io/library/nginx"}, True),
        ({}, True),
        ({"engine": None}, False),
        ({"kubernetes": Kubernetes(container_type="sandbox")}, False),
    ],
)
def test_image_list(fields: dict[str, Any], refused: bool) -> None:
    from image_list import judge, patterns_of

    known = {"image": None, "image_reference": None, "engine": "docker"} | fields
    verdict = judge(make_event("creating", **known), patterns_of(LIST))
    assert isinstance(verdict, Deny) == refused


def test_sample(tmp_path: Path) -> None:
    from sample import directory_of, sample

    cgroup = tmp_path / "web"
    cgroup.mkdir()
    container = Container(id="web", cgroup=CgroupId("/web", cgroup.stat().st_ino))
    assert directory_of(container, ("/no/such", str(tmp_path))) == cgroup
    another = replace(container, cgroup=CgroupId("/web", 1))
    assert directory_of(another, (str(tmp_path),)) is None
    assert sample(cgroup) == (None, None)
    (cgroup / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    assert sample(cgroup) == (None, 1.5)
    (cgroup / "memory.current").write_text("4096\n")
    assert sample(cgroup) == (4096, 1.5)


def test_what_they_say_without_arguments() -> None:
    import subprocess

    for name in ("image_list", "strace_each"):
        done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, check=False)
        assert done.returncode == 1 and b"Usage: " in done.stderr
