"""`sft_dist.train` that evaluates at the steps in `EVAL_AT` (comma-separated) and at no others."""

import os

from sft_dist import train
from sft_dist.loop import TrainingLoop


def main() -> None:
    steps = {int(step) for step in os.environ["EVAL_AT"].split(",")}
    TrainingLoop._evaluation_is_due = lambda self, step: step in steps  # type: ignore[method-assign]
    train.main()


if __name__ == "__main__":
    main()
