"""Tests. Others' containers may start on the same machine: their runtimes are theirs."""

import os

os.environ.setdefault("STARTGATE_SIGHTINGS", "/nonexistent")
