"""The evaluations of one run: what is asked each time, bound once. Rank 0 only; others ask nobody.

The loop says `submit(step, model_dir)` and `collect()`; neither waits.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sft_dist.config import TrainConfig
from sft_dist.data.prompts import PROMPTS
from sft_dist.data.records import MathExample
from sft_dist.evaluation.client import CLOSE_WATCH_SECONDS, EvaluationClient
from sft_dist.evaluation.exports import EXPORTS, remove_export
from sft_dist.evaluation.placement import gpus, reserved_devices
from sft_dist.evaluation.problems import build_problems
from sft_dist.evaluation.request import Problem, Sampling
from sft_dist.evaluation.scoring import EvaluationResult
from sft_dist.evaluation.waiting import wait_view
from sft_dist.evaluation.watcher import Submission
from sft_dist.evaluation.worker_group import WorkerGroup, worker_group, worker_options
from sft_dist.evaluation.worker_process import WorkerOptions

logger = logging.getLogger(__name__)

CPU_NICE = 10
"""Where training and evaluation share the CPU's cores, training goes first."""


class Evaluations(Protocol):
    """What the training loop asks for."""

    def submit(self, step: int, model_dir: Path) -> None: ...  # noqa: D102
    def collect(self) -> list[EvaluationResult]: ...  # noqa: D102
    def steps_reading(self) -> set[int]: ...  # noqa: D102
    def drain(self, until: Callable[[], bool]) -> Iterator[EvaluationResult]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class NoEvaluations:
    """On ranks other than 0, and with `--eval_placement off`."""

    def submit(self, step: int, model_dir: Path) -> None:
        """Nothing."""

    def collect(self) -> list[EvaluationResult]:
        """Nothing."""
        return []

    def steps_reading(self) -> set[int]:
        """No step."""
        return set()

    def drain(self, until: Callable[[], bool]) -> Iterator[EvaluationResult]:
        """Nothing to wait for."""
        return iter(())

    def close(self) -> None:
        """Nothing."""


class EvaluationSession:
    """Rank 0's evaluations: the same problems, prompts and decoding at every step."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        model_dir: Path,
        examples: Sequence[MathExample],
        tokenizer: Any,
        stop_token_id: int,
        beside_training_on_cpu: bool,
    ) -> None:
        """`model_dir` is the base model, on which the worker starts its engine meanwhile."""
        settings = config.evaluation
        training_prompt = config.data.prompt
        # The training prompt last: its result tells a resumed run that the others were asked for.
        others = [name for name in settings.other_prompts() if name != training_prompt]
        self._problems = {
            name: build_problems(examples, tokenizer, prompt=name)
            for name in (*others, training_prompt)
        }
        self._sampling = Sampling(
            max_new_tokens=settings.generation_max_length,
            temperature=settings.generation_temperature,
            stop_token_ids=(stop_token_id,),
            seed=config.engine.seed,
            num_samples=settings.eval_num_samples,
        )
        self._steps: dict[str, int] = {}
        options = _worker_options(
            config,
            model_dir,
            longest_prompt=_longest(self._problems),
            beside_training_on_cpu=beside_training_on_cpu,
        )
        self._client = EvaluationClient(
            run_dir,
            options=options,
            training_prompt=training_prompt,
            on_done=self._release,
            own_worker=settings.eval_placement != "external",
            worker=_reserved_workers(config, run_dir, options),
        )
        self._exports = run_dir / EXPORTS
        self._worker_starts_late = settings.eval_placement == "after"
        self._client.start(worker=not self._worker_starts_late)
        if settings.eval_placement == "external":
            logger.info("evaluations wait for: sft-evaluate --serve %s", run_dir)

    def submit(self, step: int, model_dir: Path) -> None:
        """Ask for an evaluation of the weights in `model_dir` by each prompt; returns at once."""
        directory = str(model_dir.absolute())
        self._steps[directory] = step
        self._client.submit_all(
            [
                Submission(step, directory, problems, name, PROMPTS[name].form, self._sampling)
                for name, problems in self._problems.items()
            ]
        )

    def collect(self) -> list[EvaluationResult]:
        """Results that have come in; never waits."""
        return self._client.poll()

    def steps_reading(self) -> set[int]:
        """Steps whose weights an open evaluation still reads."""
        submitted = set(self._steps.values())  # some are not on disk yet
        return submitted | {request.step for request in self._client.open_requests}

    def drain(self, until: Callable[[], bool]) -> Iterator[EvaluationResult]:
        """Results as they come in, until nothing is open or `until()`; tells how far it is."""
        if self._worker_starts_late:
            self._client.start_worker()
        self._client.watch_closely()
        with wait_view() as view:
            while True:
                is_last = not self._client.pending or until()
                yield from self.collect()  # after `pending` was read
                if is_last:
                    return
                time.sleep(CLOSE_WATCH_SECONDS)
                view.show(self._client.progress())

    def close(self) -> None:
        """Stop the worker; what is open stays in the run directory."""
        if not self._client.pending:
            shutil.rmtree(self._exports, ignore_errors=True)
        self._client.close()

    def _release(self, model_dir: str) -> None:
        """Weights that are no longer read."""
        self._steps.pop(model_dir, None)
        remove_export(model_dir)


def _worker_options(
    config: TrainConfig, model_dir: Path, *, longest_prompt: int, beside_training_on_cpu: bool
) -> WorkerOptions:
    settings = config.evaluation
    return replace(
        worker_options(config, model_dir, alone=settings.eval_placement == "reserved"),
        max_model_len=longest_prompt + settings.generation_max_length,
        nice=CPU_NICE if beside_training_on_cpu else 0,
    )


def _reserved_workers(
    config: TrainConfig, run_dir: Path, options: WorkerOptions
) -> WorkerGroup | None:
    """A worker on each reserved GPU; None with any other placement."""
    if config.evaluation.eval_placement != "reserved":
        return None
    devices = reserved_devices(gpus(), config.evaluation.eval_gpus)
    return worker_group(run_dir.absolute(), options, devices, log_name="evaluation_worker")


def _longest(problems: Mapping[str, Sequence[Problem]]) -> int:
    """Tokens of the longest prompt of any name."""
    lengths = (len(p.prompt_token_ids) for asked in problems.values() for p in asked)
    return max(lengths, default=0)
