"""`sft_dist.train`, but on rank 1 something of its own goes wrong in step 3."""

import os
import sys

from sft_dist import train
from sft_dist.loop import TrainingLoop


def fail_in_step_3(plain):
    def step(self, state):
        if state.step == 2:
            raise ValueError("a fault of this rank alone")
        return plain(self, state)

    return step


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        TrainingLoop.step = fail_in_step_3(TrainingLoop.step)
    train.main(sys.argv[1:])
