"""What the C library does with memory that was freed, in processes of their own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
import torch
from sft_dist.cpu_allocator import keep_freed_memory
torch.set_num_threads(1)
# What glibc does as it comes hangs on where things lie. Its start is: pieces of 128 KiB and more
# are mapped apart, and given back when freed.
ctypes.CDLL(None).mallopt(-3, 2**17)
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
    """Pages taken anew in each step, as a share of what it writes."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUN"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        env=own | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout) / PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_step_finds_the_memory_of_the_last_one():
    # A huge page is one fault for 512 pages: where the system gives them, nothing can be seen.
    if faults("as it comes") < 0.5:
        pytest.skip("huge pages")
    assert faults("keep") < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.parametrize("setting", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_a_setting_of_the_user_stays(setting):
    usual, kept = faults("as it comes"), faults("keep", **{setting: str(2**20)})
    assert kept == pytest.approx(usual, abs=0.05)
