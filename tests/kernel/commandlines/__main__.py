"""The long form: as many lines as are asked for, and each difference."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

from tests import arena
from tests.kernel.commandlines.trial import Trial, try_lines
from tests.kernel.support import Runtime, find_runtime


def main() -> int:
    """Return 1 if a line was understood in another way than the runtime did."""
    parser = argparse.ArgumentParser(prog="tests.kernel.commandlines", description=__doc__)
    parser.add_argument("--number", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--all", action="store_true", help="print each line")
    parser.add_argument("runtimes", nargs="*", default=["runc", "crun"], help="names, or paths")
    options = parser.parse_args()
    wrong = 0
    for name in options.runtimes:
        runtime = Runtime(Path(name).name, (name,)) if "/" in name else find_runtime(name)
        if runtime is None:
            print(f"{name} is not installed")
            continue
        wrong += _try(runtime, options.number, options.seed, everything=options.all)
    return wrong > 0


def _try(runtime: Runtime, number: int, seed: int, *, everything: bool) -> int:
    done = differing = 0
    with tempfile.TemporaryDirectory(prefix="startgate-lines-") as directory:
        for trial in try_lines(runtime, Path(directory), seed, number):
            done += trial.seen.did_something
            differing += bool(trial.differences)
            if trial.differences or everything:
                _print(runtime, trial)
    print(
        f"{runtime.prefix[-1]}, seed {seed}: {number} command lines, {done} did something to a container, "
        f"{differing} of them were read in another way"
    )
    return differing


def _print(runtime: Runtime, trial: Trial) -> None:
    print(f"{runtime.name} {shlex.join(trial.words)}")
    for difference in trial.differences:
        print(f"    {difference}")
    print(f"    [{trial.seen.status}] {trial.seen.said.strip().splitlines()[-1:]}", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="startgate-arena-") as copies:
        arena.enter(Path(copies))
        try:
            code = main()
        finally:
            arena.leave()
    sys.exit(code)
