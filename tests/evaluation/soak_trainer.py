"""Rank 0 of a training run, without the training: asks for evaluations, reports what comes in.

    python -m tests.evaluation.soak_trainer RUN_DIR MODELS_DIR NUM_STEPS

A step takes a few hundredths of a second; the weights of step N lie in MODELS_DIR/mN. Killed and
started again it goes on after the last step that it asked for, as a resumed run does.
"""

import random
import sys
import time
from pathlib import Path

from sft_dist.evaluation.client import EvaluationClient
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import Sampling
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess
from sft_dist.tracking.record import MetricsRecord
from tests.evaluation.models import problems


def main(run_dir: Path, models: Path, num_steps: int) -> None:
    queue = EvaluationQueue(run_dir)
    record = MetricsRecord(run_dir, attempt=1)
    worker = WorkerProcess(
        run_dir, WorkerOptions(backend="hf"), on_death=queue.abandon, max_deaths=50,
        first_pause_seconds=0.01, command=(sys.executable, "-m", "tests.evaluation.fake_worker"),
    )  # fmt: skip
    client = EvaluationClient(
        run_dir, options=WorkerOptions(backend="hf"), worker=worker, grading_workers=1,
        watch_seconds=0.05,
    )  # fmt: skip
    client.start()
    asked = {queued.request.step for queued in queue.requests()}
    for step in range(len(asked), num_steps):
        client.submit(
            step=step, model_dir=models / f"m{step}", problems=problems(3), prompt_name="default",
            form="boxed", sampling=Sampling(max_new_tokens=8),
        )  # fmt: skip
        for _ in range(random.randint(1, 10)):
            report(client.poll(), record)
            time.sleep(0.05)
    for result in client.drain(60):
        report([result], record)
    client.close()
    (run_dir / "done").touch()


def report(results, record):
    for result in results:
        assert result.error is None, result.error
        record.write(result.row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
