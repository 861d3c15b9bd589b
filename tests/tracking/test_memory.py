"""The peak of what a process has held."""

import subprocess
import sys

import pytest
import torch

from sft_dist.tracking.memory import peak_memory_gib

PROGRAM = """
import torch
from sft_dist.tracking.memory import peak_memory_gib
before = peak_memory_gib(torch.device("cpu"))
held = bytearray(300 * 2**20)
with_it = peak_memory_gib(torch.device("cpu"))
del held
print(before, with_it, peak_memory_gib(torch.device("cpu")))
"""


@pytest.fixture(scope="module")
def measured():
    """GiB before, with and after 300 MiB, in a child of a process that holds 800 MiB itself."""
    held = bytearray(800 * 2**20)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    del held
    return [float(word) for word in done.stdout.split()]


def test_the_peak_on_a_cpu_is_that_of_the_process_and_stays(measured):
    before, with_it, after = measured
    assert 0.28 < with_it - before < 0.35
    assert after == pytest.approx(with_it, rel=0.01)  # the kernel counts in batches of pages


def test_the_memory_of_whoever_started_the_process_is_not_its_own(measured):
    """`ru_maxrss` would have it."""
    own = peak_memory_gib(torch.device("cpu"))
    assert own > 800 / 1024
    assert measured[0] < own - 0.3
