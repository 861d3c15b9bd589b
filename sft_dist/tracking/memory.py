"""The most memory this process has held."""

import re
import resource
import sys
from pathlib import Path

import torch

GIB = 2**30


def peak_memory_gib(device: torch.device) -> float:
    """On a GPU what its tensors took at most; else the largest resident size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return _peak_resident_bytes() / GIB


def _peak_resident_bytes() -> int:
    """`VmHWM` where there is one: `ru_maxrss` also holds the peak of whoever started the process.

    Source: proc(5); getrusage(2), whose figure survives execve.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
