"""Tests that need root, fanotify and real runtimes: on this kernel, or in a VM (see vm/)."""
