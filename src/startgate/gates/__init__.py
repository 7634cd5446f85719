"""The gates: where a start is held.

`command` decides on executions of runtime binaries, `container` on reads of pid files and first programs.
Those who receive what is held (`readers`, `reader`) never wait; what may wait is in `creating`, `created`,
`executing`, `freezing` and `ends`. `oom` tells of the OOM killer.
"""
