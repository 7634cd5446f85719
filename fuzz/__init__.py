"""Fuzzing of everything in startgate that parses foreign bytes: see README.md."""
