"""The daemon: this process opens what is to outlive workers and becomes the keeper; that starts workers.

- `startgate.agent.start`: opens it, and becomes the keeper.
- `startgate.agent.worker`: a watcher over what it inherits.
- `startgate.agent.handover`: what the one tells the other.
"""
