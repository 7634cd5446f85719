"""Real container engines, each started in its own directories, watched, and stopped again."""
