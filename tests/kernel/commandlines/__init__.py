"""Random command lines: what `commandline.parse` says of each, against what a real runtime did of it.

`make command-lines N=1000` is the long form; no startgate runs.
"""
