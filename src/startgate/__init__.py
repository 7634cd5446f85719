"""startgate sees every container start and stop on a host, before the container runs.

How it works, from the kernel to the listener:

- `startgate.kernel`: fanotify, BPF, pidfds, /proc; the only code that talks to the kernel.
- `startgate.records`: how the arguments of a held execve come to user space.
- `startgate.runtimes`: the runtimes' binaries, command lines and files.
- `startgate.engines`: what container engines know: names, images, pods.
- `startgate.gates`: where a start is held, and what is done meanwhile.
- `startgate.hold`, `startgate.passage`: one answer for each held task, within its deadline.
- `startgate.lifecycle`: the state of each container. `startgate.exits`: its end.
- `startgate.policy`: rules that refuse, warn, or change a container.
- `startgate.watcher`: all of it put together.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from startgate.asyncclient import AsyncClient
    from startgate.asyncwatcher import AsyncWatcher
    from startgate.client import Client
    from startgate.current import CurrentHold, current_hold
    from startgate.errors import BundleError, KernelUnsupported, StartgateError, UsageError
    from startgate.events import (
        Ancestor,
        Caller,
        CgroupId,
        Container,
        Event,
        EventType,
        Exit,
        Gate,
        Kubernetes,
        Mount,
        Namespaces,
        Note,
        Process,
        Reason,
        Victim,
    )
    from startgate.listeners import Deny, Subscription
    from startgate.policy.patch import Patch
    from startgate.watcher import Watcher

__version__ = "0.1.0"

__all__ = [
    "Ancestor",
    "AsyncClient",
    "AsyncWatcher",
    "BundleError",
    "Caller",
    "CgroupId",
    "Client",
    "Container",
    "CurrentHold",
    "Deny",
    "Event",
    "EventType",
    "Exit",
    "Gate",
    "KernelUnsupported",
    "Kubernetes",
    "Mount",
    "Namespaces",
    "Note",
    "Patch",
    "Process",
    "Reason",
    "StartgateError",
    "Subscription",
    "UsageError",
    "Victim",
    "Watcher",
    "current_hold",
]


_MODULES = {
    "AsyncClient": "asyncclient",
    "AsyncWatcher": "asyncwatcher",
    "BundleError": "errors",
    "Client": "client",
    "CurrentHold": "current",
    "Deny": "listeners",
    "KernelUnsupported": "errors",
    "Patch": "policy.patch",
    "StartgateError": "errors",
    "Subscription": "listeners",
    "UsageError": "errors",
    "Watcher": "watcher",
    "current_hold": "current",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: what needs little is to stay small, and asyncio doubles the start-up time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"startgate.{_MODULES.get(name, 'events')}"), name)
