"""Real container engines, each started in its own directories, watched, and stopped again."""

import os

# Programs are started by fork here (kernel/spawn.py): gRPC's handlers would end the child before its execve.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
