"""The real worker around a generator that needs no model. Run as the worker would be.

The name of the model directory says what happens: `slow` takes half a minute, `deadly` kills the
process at the first attempt, `fatal` at every attempt, anything else answers at once.
"""

import os
import signal
import time

from sft_dist.evaluation import worker
from tests.evaluation.models import FakeGenerator


class Generator(FakeGenerator):
    def load(self, model_dir):
        marker = model_dir / "was-here"
        if model_dir.name == "fatal" or (model_dir.name == "deadly" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(model_dir)

    def generate(self, problems, sampling, on_progress):
        for _ in range(300 if self.loaded[-1] == "slow" else 0):
            time.sleep(0.1)
            on_progress(0)
        return super().generate(problems, sampling, on_progress)


if __name__ == "__main__":
    worker.build_generator = lambda arguments, **_: Generator()
    worker.self_test = lambda arguments: None
    worker.main()
