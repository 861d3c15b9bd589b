"""Several workers of one run on one host, each on a GPU of its own; together they look like one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sft_dist.config import TrainConfig
from sft_dist.data.token_cache import resolved_cache_dir
from sft_dist.evaluation.placement import OWN_MEMORY, SHARED_MEMORY, shared_out
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess


class Worker(Protocol):
    """What the client tends: one process, or a group of them."""

    @property
    def failure(self) -> str | None: ...  # noqa: D102
    def tend(self) -> None: ...  # noqa: D102
    def note_progress(self) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102


def worker_options(config: TrainConfig, model_dir: Path, *, alone: bool) -> WorkerOptions:
    """What the settings say of a worker; `alone` on its GPU, or beside a rank of training."""
    settings = config.evaluation
    cache = resolved_cache_dir(config.data.cache_dir)
    return WorkerOptions(
        backend=settings.eval_backend,
        warm_model=str(model_dir),
        gpu_memory_utilization=settings.eval_gpu_memory or (OWN_MEMORY if alone else SHARED_MEMORY),
        enforce_eager=settings.eval_enforce_eager,
        eval_batch_size=settings.eval_batch_size,
        tensor_parallel=settings.eval_tensor_parallel,
        self_test_cache=str(cache) if cache is not None else None,
    )


def worker_group(
    run_dir: Path, options: WorkerOptions, devices: Sequence[str], *, log_name: str
) -> "WorkerGroup":
    """Describe a worker for each device (none is started yet); without devices, one on the CPU.

    With `tensor_parallel` N each takes N of them, in order.
    """
    abandon = EvaluationQueue(run_dir).abandon
    shares = shared_out(devices, options.tensor_parallel)
    places = [replace(options, cuda_visible_devices=share) for share in shares] or [options]
    return WorkerGroup(
        [
            WorkerProcess(
                run_dir, place, on_death=abandon, log_file=f"logs/{log_name}-{number}.log"
            )
            for number, place in enumerate(places)
        ]
    )


class WorkerGroup:
    """Requests are shared by the claims in the queue; the group lives while one of it does."""

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self._workers = list(workers)

    @property
    def failure(self) -> str | None:
        """The first reason, once every worker was given up."""
        reasons = [worker.failure for worker in self._workers]
        return None if None in reasons else reasons[0]

    def tend(self) -> None:
        """Tend each."""
        for worker in self._workers:
            worker.tend()

    def note_progress(self) -> None:
        """Something was published; by which of them is not known."""
        for worker in self._workers:
            worker.note_progress()

    def stop(self) -> None:
        """Stop all."""
        for worker in self._workers:
            worker.stop()
