"""Everything that talks to the kernel: the only package with ctypes.

Thin wrappers that carry the syscall's name, raise ``OSError``, and know nothing of
containers.
"""
