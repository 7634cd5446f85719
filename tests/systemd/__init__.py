"""The unit of packaging/ under a systemd that is PID 1: `make test-systemd` has one, in a VM."""
