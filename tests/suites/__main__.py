"""Run runc's tests twice: alone, and with startgate beside them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests import arena
from tests.kernel.support import eventually, watch_events
from tests.suites import bats
from tests.suites.source import prepare

FILES = (
    "create start start_detached start_hello run exec kill delete pause events update hooks state list ps "
    "root tty cwd env debug pidfd-socket umask mask rlimits capabilities personality version"
)
"""Those about a container's life, which need no more than a busybox. All of them: --files '*'."""


def main() -> int:
    """Return 1 where a result is another beside startgate, or a container was not told."""
    parser = argparse.ArgumentParser(prog="tests.suites", description=__doc__)
    parser.add_argument("--runtime", type=Path, required=True, help="runc, as old as its tests")
    parser.add_argument("--directory", type=Path, required=True, help="where the tests are kept")
    parser.add_argument("--files", default=FILES, help="names without .bats")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a file")
    options = parser.parse_args()
    tests = prepare(options.directory) / "tests/integration"
    wanted = [path for name in options.files.split() for path in sorted(tests.glob(f"{name}.bats"))]
    with tempfile.TemporaryDirectory(prefix="startgate-suites-") as made:
        arena.enter(Path(made))
        runtime = Path(made) / "bin/runc"
        runtime.parent.mkdir()
        shutil.copy(options.runtime, runtime)
        os.environ["STARTGATE_SIGHTINGS"] = str(runtime.parent)  # not the recorder
        record = bats.recorder(Path(made) / "record", runtime)
        try:
            trial = Trial(record, runtime, options.limit, options.directory / "said")
            wrong = [file.stem for file in wanted if not _is_same(file, trial)]
        finally:
            arena.leave()
    print(f"{len(wanted)} files, {len(wrong)} of them otherwise beside startgate: {' '.join(wrong)}")
    return bool(wrong)


class Trial(NamedTuple):
    """How each file is run."""

    record: Path
    runtime: Path
    limit: float
    said: Path
    """The directory where all is kept that bats said."""


def _is_same(file: Path, trial: Trial) -> bool:
    trial.said.mkdir(exist_ok=True)
    begun = time.monotonic()
    alone = bats.run(file, trial.record, trial.said / f"{file.stem}.alone", trial.limit)
    seconds = time.monotonic() - begun
    with watch_events(runtimes=[str(trial.runtime)]) as watched:
        beside = bats.run(file, trial.record, trial.said / f"{file.stem}.beside", trial.limit)
        eventually(lambda: bats.told(watched.events, "creating") == beside.starts, 2)
        time.sleep(0.5)
    starts, execs = bats.told(watched.events, "creating"), bats.told(watched.events, "exec")
    print(
        f"{file.name}: {alone} in {seconds:.0f} s; beside startgate {beside}; "
        f"{beside.starts.total()} starts, {starts.total()} told; {beside.execs.total()} execs, "
        f"{execs.total()} told",
        flush=True,
    )
    wrong = {
        name: (alone.tests.get(name), beside.tests.get(name))
        for name in alone.tests.keys() | beside.tests.keys()
        if alone.tests.get(name) != beside.tests.get(name)
    }
    lost = [event.reason for event in watched.events if event.type == "lost"]
    for what, found in (
        ("results", wrong),
        ("not told", (beside.starts - starts) + (beside.execs - execs)),
        ("told, and not asked for", (starts - beside.starts) + (execs - beside.execs)),
        ("lost", lost),
    ):
        if found:
            print(f"    {what}: {found}", flush=True)
    return not wrong and starts == beside.starts and execs == beside.execs and not lost


if __name__ == "__main__":
    sys.exit(main())
