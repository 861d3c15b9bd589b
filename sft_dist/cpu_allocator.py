"""How glibc gives memory back, for training on a CPU. No torch."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of mallopt(3)."""
MMAPPED = 2**25
"""Bytes from which on a tensor is mapped apart and given back when freed: mallopt(3)'s most."""
KEPT_AT_END = 2**26
"""Freed bytes at the heap's end that are kept for the next step."""

SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let a step find the memory that the last one freed.

    As it comes, glibc gives back what is free at the end of its heap, and a step of a small model
    takes thousands of pages anew (benchmarks/cpu_allocator.py). Thresholds that the user has set
    stay; another C library is left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in SET_BY_USER):
        return
    mallopt(M_MMAP_THRESHOLD, MMAPPED)
    mallopt(M_TRIM_THRESHOLD, KEPT_AT_END)
