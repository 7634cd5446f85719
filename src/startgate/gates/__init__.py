"""The gates: where a start is held. Two reading threads, and what they hand over to.

`command` reads the runtime binaries' fanotify group, `container` that of pid files and
first programs. Reading threads decide and never wait; `conductor` does the work.
"""
