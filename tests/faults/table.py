"""Writes the table of docs/daemon.md from the report of `make faults`.

``python -m tests.faults.table build/faults.xml``
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/daemon.md"
COLUMNS = {
    "fault": "fault",
    "started": "started",
    "held": "held",
    "missed": "missed",
    "longest": "longest delay",
    "version": "of `runc --version`",
    "note": "",
}


if __name__ == "__main__":
    sys.exit(tables.write(Path(sys.argv[1]), DOCUMENT, "faults", COLUMNS))
