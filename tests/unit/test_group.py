from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from startgate.keeper.channel import pair
from startgate.keeper.group import KeptGroup
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM


def test_a_mark_of_a_group_that_is_closed_waits_for_nobody(tmp_path: Path) -> None:
    """The keeper has ended, or is about to: a thread that marks must not keep its watcher from closing."""
    group = KeptGroup(lambda: None)
    (events, one), (marks, other) = pair(), pair()
    group.attach(events, [marks])
    group.close()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(BrokenPipeError):
            group.mark(FAN_OPEN_EXEC_PERM, str(tmp_path))
    assert time.monotonic() - began < 1
    group.close_fds()
    os.close(one)
    os.close(other)
