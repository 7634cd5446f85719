"""Hooks: commands that are run at events, as an OCI runtime runs the hooks of config.json.

- `startgate.hooks.config`: how a hook is written.
- `startgate.hooks.documents`: what it is told.
- `startgate.hooks.process`: one run of it.
- `startgate.hooks.runner`: which are run, when, how many at a time, and what follows.
"""

from startgate.hooks.config import HOOK_TYPES, HookConfig, HookType, parse_option
from startgate.hooks.runner import Hooks

__all__ = ["HOOK_TYPES", "HookConfig", "HookType", "Hooks", "parse_option"]
