"""Opens what is to outlive the workers, and becomes the keeper, which starts them."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from startgate.agent.handover import Handover
from startgate.filters import compile_filter
from startgate.hold import check_hold_timeout
from startgate.inherited import notes
from startgate.inherited.resources import Opened
from startgate.journal.spool import prepare
from startgate.keeper import start
from startgate.kernel import features


def become_keeper(*, exec_records: str, hang_limit: float, absent: str, **watch: Any) -> NoReturn:
    """Replace this process by the keeper. `watch` are the options of the worker's `watch`.

    `absent` says what becomes of a start while no worker can be asked: ``allow`` or ``deny``, which
    denies what the last worker's rules owed a verdict. Raises KernelUnsupported where this host can't
    hold containers, UsageError for a filter that does not compile, ValueError for a hold timeout that
    makes no sense; OSError where the spool's directory can't be made.
    """
    check_hold_timeout(watch["hold_timeout"])
    if watch["keep"]:
        compile_filter(watch["keep"])
    features.check_host_root(watch["host_root"])
    features.check_other_processes(watch["host_root"])
    number = prepare(watch["spool"]) if watch["spool"] else 0
    opened = Opened(exec_records)
    place, lock = notes.create(os.environ.get("RUNTIME_DIRECTORY", "/run/startgate"))
    fds = opened.worker_fds(number) | {"notes": lock}
    start.become_daemon(
        {"commands": opened.commands.fileno(), "containers": opened.containers.fileno()},
        opened.source.keeper_fds(),
        Handover(fds, opened.source.name, watch, place).command(),
        list(fds.values()),
        hold_timeout=watch["hold_timeout"],
        hang_limit=hang_limit,
        absent_denies=absent == "deny",
    )
