"""Entering the process group without a launcher, and how long its collectives wait."""

import json
import os
import subprocess
import sys

TIMEOUTS = """
import json, torch, torch.distributed as dist
from sft_dist.runtime.distributed import backend_timeout, distributed, set_group_timeouts

def seconds(group):
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()

with distributed(7) as ranks:
    theirs = dist.new_group()  # as an engine makes it, with the backend's default
    before = seconds(theirs)
    set_group_timeouts(7)
    found = [seconds(dist.group.WORLD), before, seconds(theirs)]
print(json.dumps([*found, backend_timeout(7).total_seconds(), ranks.world_size]))
"""


def test_the_groups_of_an_engine_get_the_timeout_of_the_run():
    clean = {name: value for name, value in os.environ.items() if name != "RANK"}
    done = subprocess.run(
        [sys.executable, "-c", TIMEOUTS], capture_output=True, text=True, env=clean, check=True
    )
    world, before, after, asked, ranks = json.loads(done.stdout.splitlines()[-1])
    assert ranks == 1
    assert world == after == asked
    assert asked > 7  # the watch speaks first
    assert before != asked
