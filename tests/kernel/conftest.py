"""Fixtures: real runtimes, bundles, watchers; and a check that nothing is left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from startgate import KernelUnsupported
from startgate.kernel import features, spawn
from startgate.records import SOURCES
from startgate.testing import make_bundle
from tests import arena
from tests.kernel.support import (
    Runtime,
    Watching,
    eventually,
    find_runtime,
    resources,
    unavailable,
    watch_events,
)

__all__ = ["Watching"]

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold no start of this host but our own."""
    if os.getuid():
        unavailable("only root can hold a start")
    arena.enter(tmp_path_factory.mktemp("runtimes"))
    yield
    arena.leave()


@pytest.fixture(scope="session", autouse=True)
def _kernel(_arena: None) -> None:
    spawn.keep_gil_free()  # tests answer their own children's execs, without a watcher, too
    try:
        group = features.open_group()
    except KernelUnsupported as error:
        unavailable(str(error))
    else:
        group.close()


@pytest.fixture(autouse=True)
def _no_process_left(_arena: None) -> Iterator[None]:
    """A test that leaves a process behind fails; and that process holds no later test's starts."""
    before = arena.processes()
    yield
    left = arena.end(before)
    assert not left, f"left running: {left}"


@pytest.fixture(autouse=True)
def _nothing_left(_kernel: None, _no_process_left: None) -> Iterator[None]:
    """Fail a test that leaves an fd or a thread behind."""
    before = resources()
    yield
    left = resources() - before
    assert eventually(lambda: not (resources() - before), 5), f"left behind: {left}"


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each installed runtime in turn."""
    found = find_runtime(request.param)
    if found is None:
        unavailable(f"{request.param} is not installed")
    return found


@pytest.fixture
def runc() -> Runtime:
    """The reference runtime."""
    found = find_runtime("runc")
    if found is None:
        unavailable("runc is not installed")
    return found


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    """Each exec record source with "", or the reason why it can't be had here."""
    found = {}
    for name, source in SOURCES.items():
        group = features.open_group(report_tid=True)
        try:
            source(group).close()
            found[name] = ""
        except KernelUnsupported as error:
            found[name] = str(error)
        finally:
            group.close()
    return found


@pytest.fixture(params=list(SOURCES))
def source(request: pytest.FixtureRequest, sources: dict[str, str]) -> str:
    """Each exec record source in turn. `queue` is missing on kernels without kprobes: see vm/."""
    if reason := sources[request.param]:
        if request.param == "queue" and "kprobes" in reason:
            pytest.skip(reason)
        unavailable(reason)
    return str(request.param)


@pytest.fixture
def name() -> str:
    """A container id that no other test uses."""
    return f"sg-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose program ends with exit code 7."""
    return make_bundle(tmp_path / "bundle", ["/bin/sh", "-c", "exit 7"])


@pytest.fixture
def watching() -> Watching:
    """Start a watcher whose events are collected: ``with watching() as watched``."""
    return watch_events
