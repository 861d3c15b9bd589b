"""What the C library does with memory that was freed, in processes of their own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from sft_dist.cpu_allocator import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    pieces = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""
PAGES = 8 * 2**22 / 4096


def faults(mode, **environment):
    """Pages taken anew in each step."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_step_finds_the_memory_of_the_last_one():
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUN"))}
    assert faults("keep", **clean) < 0.05 * PAGES
    # A user's setting stays: pieces of 1 MiB and more are mapped apart, and go back.
    assert faults("keep", **clean, MALLOC_MMAP_THRESHOLD_=str(2**20)) > 0.95 * PAGES
