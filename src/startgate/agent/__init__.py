"""The node agent: a tiny supervisor, and the worker that does everything.

- `startgate.agent.start`: opens what is to outlive workers, and becomes the supervisor.
- `startgate.agent.supervisor`: keeps it, and sees to it that a worker lives.
- `startgate.agent.state`: its states: whose the groups are.
- `startgate.agent.words`: what a worker and it say to each other.
- `startgate.agent.health`: does the worker hang? Pure.
- `startgate.agent.worker`: a watcher over what it inherits.
"""
