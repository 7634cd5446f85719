"""Writes the table of docs/policy.md from the report of tests/kernel/test_around.py.

``python -m tests.kernel.table build/around.xml``
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests import tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/policy.md"
COLUMNS = {
    "asked": "what config.json asks for",
    "built": "what the kernel built",
    "early": "seen at `creating`",
    "late": "at `created`, by `container.actual`",
    "differs": "`differs`",
}


if __name__ == "__main__":
    sys.exit(tables.write(Path(sys.argv[1]), DOCUMENT, "around", COLUMNS))
