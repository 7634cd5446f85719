"""What one worker leaves to the next: fds, notes of containers, its progress, events not yet printed."""
