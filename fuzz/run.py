"""Run one target under atheris: ``python -m fuzz.run TARGET SECONDS``.

What it learns goes to .fuzz/TARGET, a failing input to .fuzz/TARGET-crash-*.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["startgate", "json"]):
    from fuzz.targets import TARGETS

_CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Feed the target until the time is over; atheris exits with 77 on a failure."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    learnt = Path(".fuzz") / name
    learnt.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={learnt}-",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=65536",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(learnt), str(_CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
