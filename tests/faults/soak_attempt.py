"""One process of a run that is to be killed: `sft_dist.train` or its evaluation worker.

torchrun ... -m tests.faults.soak_attempt --model_path ...      # a rank
python -m tests.faults.soak_attempt --worker RUN ...            # started by rank 0
"""

import os
import sys

from tests.faults.points import Points


def train(arguments):
    import sft_dist.train
    from tests.faults.recipe_points import install

    install(Points.from_environment(f"rank {os.environ.get('RANK', '0')}"))
    sft_dist.train.main(arguments)


def evaluate(arguments):
    from sft_dist.evaluation import worker

    points = Points.from_environment("worker")
    points.phase = "evaluation worker"
    points.install()
    sys.argv = [worker.__file__, *arguments]
    worker.main()


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        evaluate(sys.argv[2:])
    else:
        train(sys.argv[1:])
