"""A forbidden mount in random words, beside random much else: it is never started."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from startgate.policy import rules
from startgate.testing import write_config
from tests.kernel.conftest import Watching
from tests.kernel.support import SLOWNESS, Runtime, types

pytestmark = pytest.mark.portable

RULE = """
[[rule]]
name = "no-secret"
match = '''container.mounts.exists(m, m.resolved == "{secret}" || m.resolved.startsWith("{secret}/"))'''
action = "deny"
"""
SPELLINGS = (
    "{0}",
    "{0}/",
    "{0}/.",
    "/./{0}",
    "/proc/self/root{0}",
    "{link}",
    "{relative}",
    "{0}/below",
    "{up}",
)
PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
_numbers = itertools.count()


@st.composite
def secret_mounts(draw: st.DrawFn, place: Path, bundle: Path) -> dict[str, Any]:
    """Return a mount of the secret, as somebody might write it who does not want it to be seen."""
    secret = str(place / "secret")
    source = draw(st.sampled_from(SPELLINGS)).format(
        secret,
        link=place / "link",
        relative=os.path.relpath(secret, bundle),
        up=f"{place}/link/../secret",
    )
    bind = draw(st.sampled_from(["bind", "rbind"]))
    more = draw(st.lists(st.sampled_from(["ro", "rw", "rprivate", "nosuid", "noexec"]), max_size=3))
    return {
        "destination": draw(st.sampled_from(["/tmp", "/tmp/", "/mnt/new", "/./tmp"])),
        "type": draw(st.sampled_from(["bind", "none", ""])),
        "source": source,
        "options": draw(st.permutations([bind, *more])),
    }


@st.composite
def padding(draw: st.DrawFn) -> dict[str, Any]:
    """Return what may hide the rest by its size."""
    kind = draw(st.sampled_from(["nothing", "annotations", "mounts", "environment"]))
    if kind == "annotations":
        return {"annotations": {f"a{n}": "x" * 4000 for n in range(draw(st.integers(1, 400)))}}
    if kind == "mounts":
        tmpfs = {"type": "tmpfs", "source": "tmpfs"}
        return {"mounts": [tmpfs | {"destination": f"/t{n}"} for n in range(draw(st.integers(1, 60)))]}
    if kind == "environment":
        return {"env": [f"A{n}=" + "x" * 10_000 for n in range(draw(st.integers(1, 40)))]}
    return {}


def test_a_forbidden_mount_is_never_made(
    runtime: Runtime, bundle: Path, name: str, watching: Watching, tmp_path: Path
) -> None:
    place = tmp_path.resolve()
    (place / "secret/below").mkdir(parents=True)
    (place / "link").symlink_to(place / "secret")
    (place / "harmless").mkdir()
    path = tmp_path / "rules.toml"
    path.write_text(RULE.format(secret=place / "secret"))

    with watching() as watched:
        watched.watcher.replace((), rules.load([str(path)]).registrations())

        def start(mount: dict[str, Any], more: dict[str, Any]) -> tuple[int, str]:
            identity = f"{name}-{next(_numbers)}"
            mounts = [PROC, *more.get("mounts", ()), mount]
            config = {"mounts": mounts, "annotations": more.get("annotations", {})}
            write_config(bundle, ["/bin/true"], config=config)
            document = json.loads((bundle / "config.json").read_text())
            document["process"]["env"] += more.get("env", [])
            (bundle / "config.json").write_text(json.dumps(document))
            done = runtime("run", "-b", str(bundle), identity, check=False)
            return done.returncode, identity

        harmless = {"destination": "/tmp", "type": "bind", "options": ["bind"]}
        assert start(harmless | {"source": str(place / "harmless")}, {})[0] == 0

        @settings(
            max_examples=30 if SLOWNESS == 1 else 5, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(secret_mounts(place, bundle), padding())
        def never(mount: dict[str, Any], more: dict[str, Any]) -> None:
            code, identity = start(mount, more)
            assert code != 0, mount
            watched.wait_for("denied", identity)
            assert types(watched.of(identity)) == ["denied"]

        never()
