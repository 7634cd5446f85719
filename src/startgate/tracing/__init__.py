"""A tracer for each container: started while the container is held, ready before its first instruction.

- `startgate.tracing.command`: the tracer's command line, with placeholders.
- `startgate.tracing.ready`: how it is known that a tracer is ready.
- `startgate.tracing.tracer`: one tracer, from its start to its end.
- `startgate.tracing.tracers`: which containers get one.
"""

from startgate.tracing.tracer import Told
from startgate.tracing.tracers import Tracers, trace

__all__ = ["Told", "Tracers", "trace"]
