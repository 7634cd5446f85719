"""The files that decide what is done at starts: the configuration, and the rules it names."""
