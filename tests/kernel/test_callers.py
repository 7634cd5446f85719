"""Who stands behind a start: read while the runtime is held, so that all of them are there."""

from __future__ import annotations

import os
from pathlib import Path

from tests.kernel.conftest import Watching
from tests.kernel.support import Runtime


def test_the_chain_of_callers(
    source: str, runtime: Runtime, bundle: Path, name: str, watching: Watching
) -> None:
    """A shell that is gone by the time that its container is, this process, and whose it is."""
    with watching(exec_records=source) as watched:
        runtime("run", "-b", str(bundle), name, check=False)
        creating = watched.wait_for("creating", name)
        stopped = watched.wait_for("stopped", name)
    assert creating.container and stopped.container
    chain = creating.container.started_by_chain
    caller = creating.container.started_by
    assert caller and (chain[0].pid, chain[0].comm) == (caller.pid, caller.comm)
    ours = next(index for index, each in enumerate(chain) if each.pid == os.getpid())
    assert chain[ours].exe == os.readlink("/proc/self/exe")
    assert chain[ours + 1].pid == os.getppid()
    assert {each.comm for each in chain[:ours]} <= {"sh", "unshare"}
    assert stopped.container.started_by_chain == chain
