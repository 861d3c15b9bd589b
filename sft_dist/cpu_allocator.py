"""How glibc gives memory back, for training on a CPU. No torch."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of mallopt(3)."""
MMAPPED = 2**25
"""Bytes from which on a tensor is mapped apart and given back when freed; the most glibc allows."""
KEPT_AT_END = 2**26
"""Freed bytes at the heap's end that are kept for the next step."""


def keep_freed_memory() -> None:
    """Let a step find the memory that the last one freed.

    As it comes, glibc gives back what is free at the end of its heap, and a step
    of a small model takes thousands of pages anew: a tenth of its time. Settings of the user's in
    the environment stay; another C library is left alone.
    """
    own = ("MALLOC_", "GLIBC_TUNABLES")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(own) for name in os.environ):
        return
    mallopt(M_MMAP_THRESHOLD, MMAPPED)
    mallopt(M_TRIM_THRESHOLD, KEPT_AT_END)
