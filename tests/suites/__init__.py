"""runc's own tests (bats), alone and with startgate beside them: `make test-suites`. It takes minutes."""
