"""Names the places of the training recipe for `Points`, by wrapping its functions from outside."""

import sys
from functools import wraps

from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from transformers import PreTrainedTokenizerBase

import sft_dist.engines.build
import sft_dist.preparation
from sft_dist.data.prefetch import BatchLoader
from sft_dist.data.sampler import BatchPlan
from sft_dist.engines.deepspeed_engine import DeepSpeedEngine
from sft_dist.engines.torch_engine import TorchEngine
from sft_dist.engines.totals import StepTotals
from sft_dist.evaluation.session import EvaluationSession
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess
from sft_dist.loop import TrainingLoop
from sft_dist.saving import Saving
from sft_dist.tracking.tracker import NullTracker, RunTracker

STALE_SECONDS = 12.0
"""Instead of 120: how long a resumed run waits for a worker that died with the node."""


def around(owner, name, *, before=None, after=None):
    """Call `before(*args)` and `after(result, *args)` around `owner.name(*args)`."""
    function = getattr(owner, name)

    @wraps(function)
    def wrapped(*args, **kwargs):
        if before is not None:
            before(*args)
        result = function(*args, **kwargs)
        if after is not None:
            after(result, *args)
        return result

    setattr(owner, name, wrapped)


def install(points):
    """Replaces functions of this process for good."""
    _start_up(points)
    _step(points)
    _saving(points)
    _evaluation(points)
    points.install()
    # After it: what `save_pretrained` writes in Rust has no function to replace.
    whole = PreTrainedTokenizerBase.save_pretrained

    def save_pretrained(tokenizer, directory, *args, **kwargs):
        path = directory / "tokenizer.json"
        return points.in_c(path, lambda: whole(tokenizer, directory, *args, **kwargs))

    PreTrainedTokenizerBase.save_pretrained = save_pretrained


def _start_up(points):
    around(
        sft_dist.preparation, "prepare", before=lambda *_: points.at("before the data"),
        after=lambda *_: points.at("after the data"),
    )  # fmt: skip
    around(sft_dist.engines.build, "load_model", before=lambda *_: points.at("before the model"))
    around(sft_dist.engines.build, "build_engine", before=lambda *_: points.at("before the engine"))
    for engine in (TorchEngine, DeepSpeedEngine):
        around(
            engine, "load_state", before=lambda *_: points.at("before the optimizer state"),
            after=lambda *_: points.at("after the optimizer state"),
        )  # fmt: skip
    around(TrainingLoop, "run", before=lambda *_: points.at("ready to train"))


def _step(points):
    def begin(_, step):
        points.phase = f"step {step + 1}"
        points.micro_batch = 0

    def micro_batch(*_):
        points.micro_batch += 1
        if points.micro_batch > 1:
            points.at(f"between micro-batches {points.micro_batch - 1} and {points.micro_batch}")

    def epoch(is_end, _, step):
        if is_end and points.phase == f"step {step}":
            points.at("an epoch's end")

    around(BatchLoader, "take", before=begin, after=lambda *_: points.at("its batch is there"))
    around(StepTotals, "begin", before=micro_batch)
    around(StepTotals, "add", before=lambda *_: points.at("between forward and backward"))
    around(StepTotals, "reduce", before=lambda *_: points.at("after the backward"))
    register_optimizer_step_pre_hook(lambda *_: points.at("before the optimizer step"))
    register_optimizer_step_post_hook(lambda *_: points.at("after the optimizer step"))
    for tracker in (RunTracker, NullTracker):
        around(
            tracker, "log_step", before=lambda *_: points.at("updated, not recorded"),
            after=lambda *_: points.at("recorded"),
        )  # fmt: skip
    around(BatchPlan, "is_epoch_end", after=epoch)


def _saving(points):
    for name in ("checkpoint", "export"):
        around(
            Saving, name, before=lambda *_: points.at("before its save"),
            after=lambda *_: points.at("its save is under way"),
        )  # fmt: skip

    def ending(*_):
        points.at("all steps done")
        points.phase = "end"

    around(Saving, "finish", before=ending, after=lambda *_: points.at("the last save is done"))


def _evaluation(points):
    def collecting(session):
        if session.steps_reading():
            points.at("an evaluation is open")

    around(EvaluationSession, "submit", before=lambda *_: points.at("an evaluation is asked for"))
    around(EvaluationSession, "collect", before=collecting)
    around(RunTracker, "log_evaluation", before=lambda *_: points.at("an evaluation is there"))
    command = (sys.executable, "-m", "tests.faults.soak_attempt", "--worker")
    WorkerProcess.__init__.__kwdefaults__["command"] = command
    defaults = list(WorkerOptions.__init__.__defaults__)
    defaults[defaults.index(WorkerOptions.stale_seconds)] = STALE_SECONDS
    WorkerOptions.__init__.__defaults__ = tuple(defaults)
