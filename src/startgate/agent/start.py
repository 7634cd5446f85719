"""Opens what is to outlive the workers, and becomes the supervisor, which is much smaller."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from startgate.agent import words
from startgate.agent.handover import Handover
from startgate.filters import compile_filter
from startgate.inherited import notes
from startgate.inherited.progress import Progress
from startgate.inherited.resources import Resources
from startgate.kernel import features
from startgate.watcher import check_hold_timeout, raise_fd_limit


def become_supervisor(*, exec_records: str, hang_limit: float, **watch: Any) -> NoReturn:
    """Replace this process by the supervisor. `watch` are the options of the worker's `watch`.

    Raises KernelUnsupported where this host can't hold containers, UsageError for a filter
    that does not compile, ValueError for a hold timeout that makes no sense.
    """
    check_hold_timeout(watch["hold_timeout"])
    if watch["keep"]:
        compile_filter(watch["keep"])
    features.check_host_root(watch["host_root"])
    features.check_other_processes(watch["host_root"])
    raise_fd_limit()  # for all workers: the next one keeps the numbers that a dead one's events had
    resources = Resources.open(exec_records, Progress.shared())
    place, lock = notes.create(os.environ.get("RUNTIME_DIRECTORY", "/run/startgate"))
    fds = resources.fds() | words.fds() | {"notes": lock}
    Handover(fds, resources.source.name, watch, hang_limit, place).become_supervisor()
