"""Errors of collectives whose other rank does not come, as the backend really words them."""

import json
import subprocess
import sys

import pytest

SECONDS = 2

TWO_RANKS = """
import json, os, signal, sys, time, torch, torch.distributed as dist
from datetime import timedelta
from sft_dist.runtime.lost_ranks import is_lost_rank

store, (rank, outstanding, seconds) = sys.argv[1], map(int, sys.argv[2:])
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2,
    timeout=timedelta(seconds=seconds),
)
sums = torch.ones(1000)
dist.all_reduce(sums)
if rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
begun = [dist.all_reduce(sums, async_op=True) for _ in range(outstanding - 1)]
time.sleep(0.5)  # the first one's time is over first
try:
    dist.all_reduce(sums)
except Exception as error:
    print(json.dumps([is_lost_rank(error), str(error)]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("outstanding", [1, 2], ids=["alone", "another begun before"])
def test_a_collective_that_nobody_joins_is_a_lost_rank(tmp_path, outstanding):
    command = [sys.executable, "-c", TWO_RANKS, str(tmp_path / "store")]
    ranks = [
        subprocess.Popen(
            [*command, *map(str, (rank, outstanding, SECONDS))], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    told, _ = ranks[0].communicate(timeout=120)
    ranks[1].kill()
    ranks[1].communicate()
    is_lost, message = json.loads(told.splitlines()[-1])
    assert is_lost, message
