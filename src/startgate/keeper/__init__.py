"""Python's side of the keeper: the C processes (native/keeper) that hold the fanotify groups.

- `startgate.keeper.protocol`: what is said; mirrors native/keeper/protocol.h. Pure.
- `startgate.keeper.channel`: a socket for messages with at most one fd.
- `startgate.keeper.group`: a fanotify group that the keeper has: marks, answers, what is held.
- `startgate.keeper.keeper`: the keeper as a worker has it.
- `startgate.keeper.start`: starting one.

This process has no fanotify group: whatever becomes of it, the keeper answers.
"""
