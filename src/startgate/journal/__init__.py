"""The journal: what the daemon told, kept for weeks, and asked.

- `spool`: the worker's end: lines in a bounded directory in memory.
- `agent`: a process of its own that takes lines from the spool into the journal.
- `rows`: a line as rows, and back. `database`: one file. `writer`, `reader`, `verify`: all files.

Nothing here is imported by a process that holds, but `spool`. docs/journal.md.
"""
