"""Policy: rules in CEL that refuse, warn, or change a container before it is made.

`patch`: what may be changed in config.json. `rules`: the files and their evaluation.
"""
