"""Hosts killed at random steps: does the run always go on from its last checkpoint?

    python -m benchmarks.host_failures --kills 10 --seed 0     # root and iproute2; about 10 minutes

Three virtual hosts with a rank each, ZeRO-2. At a random step a random host is killed; the others
must stop by themselves; the run goes on with the two that are left, later with all three again. In
the end every step must be there, with the losses of an unbroken run on one host up to rounding
(another number of ranks adds up in another order).
"""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from launch.virtual_hosts import VirtualHost, virtual_hosts, why_not
from tests.scripts.several_hosts import Job, make_inputs

STEPS_BETWEEN = 6
"""At most so many steps from a start to the next kill."""
STOP_SECONDS = 120


def kill_one(job: Job, hosts: list[VirtualHost], source: random.Random, number: int) -> float:
    """Start, kill a random host after some steps; seconds until all others had stopped."""
    before = max(job.losses(), default=0)
    launchers = job.start(hosts, ranks_per_host=1, port=29520 + number)
    step = before + source.randint(1, STEPS_BETWEEN)
    job.wait_until_step(launchers, step)
    victim = source.randrange(len(hosts))
    hosts[victim].kill()
    began = time.monotonic()
    for launcher in launchers:
        launcher.wait(timeout=STOP_SECONDS)
    seconds = time.monotonic() - began
    print(f"kill {number}: host {victim} of {len(hosts)} at step {step}, the others stopped after "
          f"{seconds:.1f} s, checkpoints {checkpoints(job)}", flush=True)  # fmt: skip
    return seconds


def checkpoints(job: Job) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in job.run_dir.glob("checkpoint-*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="deepspeed")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"cannot run: {reason}")
    source = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="host-failures-"))
    inputs = make_inputs(folder, num_train=8 * (options.kills + 1) * STEPS_BETWEEN)
    with virtual_hosts(3) as hosts:
        whole = Job(inputs, folder / "whole", options.engine)
        whole.finish(whole.start(hosts[:1], ranks_per_host=2))
        job = Job(inputs, folder / "broken", options.engine)
        times = []
        for number in range(1, options.kills + 1):
            alive = hosts if number % 2 else source.sample(hosts, 2)
            times.append(kill_one(job, alive, source, number))
        job.finish(job.start(hosts[:2], ranks_per_host=1), seconds=600)
    losses, expected = job.losses(), whole.losses()
    assert losses.keys() == expected.keys(), "a step is missing"
    off = max(abs(losses[step] / expected[step] - 1) for step in expected)
    print(f"{options.kills} of {options.kills} resumed; {len(losses)} steps, each there; largest "
          f"difference of a loss {off:.1e}; stopped within {max(times):.1f} s")  # fmt: skip
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
