"""Fixtures: a private arena, loads, and the figures for the table."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from startgate.testing import make_bundle
from tests.faults.agent import Teller
from tests.faults.load import Load
from tests.faults.probe import Probe
from tests.kernel.conftest import _arena, _kernel, _no_process_left, runc  # noqa: F401
from tests.kernel.support import Runtime

SOAK = os.environ.get("STARTGATE_SOAK") == "1"
"""The long forms of the tests: minutes each."""
Tell = Callable[..., None]
_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _notes(_arena: None, tmp_path_factory: pytest.TempPathFactory) -> None:  # noqa: F811
    # A daemon that is killed leaves its notes: here, not in /run.
    os.environ["RUNTIME_DIRECTORY"] = str(tmp_path_factory.mktemp("run"))


@pytest.fixture
def load(runc: Runtime, tmp_path: Path) -> Load:  # noqa: F811
    """Containers that end with exit code 7."""
    bundle = make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "exit 7"])
    return Load(runc, bundle, tmp_path, f"f{os.getpid()}-{next(_numbers)}")


@pytest.fixture
def tell(record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]) -> Tell:
    """Keep a fault's figures for the table, and print them."""

    def keep(
        fault: str,
        load: Load,
        agent: Teller,
        *,
        missed: int | None = None,
        note: str = "",
        probe: Probe | None = None,
    ) -> None:
        figures = {
            "fault": fault,
            "started": len(load.took),
            "held": len(load.held(agent)),
            "missed": len(load.untold(agent)) if missed is None else missed,
            "longest": f"{load.longest_delay:.2f} s",
            "version": f"{probe.longest:.2f} s" if probe else "",
            "note": note
            if agent.hang_limit == 2
            else f"{note} (hang limit {agent.hang_limit:.1f} s)".strip(),
        }
        for name, value in figures.items():
            record_property(name, value)
        with capsys.disabled():
            print("\n  " + ", ".join(f"{name} {value}" for name, value in figures.items()))

    return keep
