"""What the worker needs from whatever decodes: one protocol, two implementations.

`vllm_generator.py` and `hf_generator.py` implement it; tests use fakes.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.request import Problem, Sampling

VLLM_NOT_INSTALLED = (
    "--eval_backend vllm needs vLLM, which is not installed here: run "
    "pip install 'sft_dist[gpu]' on a CUDA machine, pip install 'sft_dist[cpu]' elsewhere, "
    "or decode with transformers: --eval_backend hf"
)

Progress = Callable[[int], None]
"""Called with the number of finished completions; may raise to stop the generation."""


@dataclass(frozen=True)
class Completion:
    """One row of completions.jsonl: answer number `sample` (from 0) to the problem `id`.

    `num_tokens` counts the stop token. `mean_token_entropy` is in nats, over the full vocabulary,
    of the raw logits (temperature 1), averaged over the generated positions with that of the stop
    token; None where nothing was generated. `finish_reason` "length" with 0 tokens means that the
    prompt left no room in the model's context.
    """

    id: str
    response: str
    num_tokens: int
    finish_reason: str
    mean_token_entropy: float | None
    sample: int = 0


@dataclass(frozen=True)
class Draw:
    """A completion to be made: answer number `sample` to `problem`."""

    problem: Problem
    sample: int

    @property
    def key(self) -> tuple[str, int]:
        """What its completion is known by."""
        return self.problem.id, self.sample


def draws(problems: Sequence[Problem], sampling: Sampling) -> list[Draw]:
    """All completions that are wanted, the answers to one problem in a row."""
    return [Draw(problem, i) for problem in problems for i in range(sampling.num_samples)]


class Generator(Protocol):
    """A living decoder that can change its weights."""

    def load(self, model_dir: Path) -> dict[str, Any]:
        """Make the weights of `model_dir` the ones that decode; return facts that prove it.

        Raises EvaluationError when they cannot be loaded or the proof fails. The generator stays
        usable: the next `load` starts afresh.
        """

    def generate(
        self, problems: Sequence[Problem], sampling: Sampling, on_progress: Progress
    ) -> list[Completion]:
        """Decode with the loaded weights; the completions are in the order of `draws`."""

    def close(self) -> None:
        """Free the device."""


def prompt_overflow(draw: Draw) -> Completion:
    """The completion of a prompt that fills the model's context: counted, never an exception."""
    name, sample = draw.key
    return Completion(name, "", 0, "length", mean_token_entropy=None, sample=sample)


def require_backend(backend: str) -> None:
    """Raise EvaluationError that says how to install it, when the back-end is not there."""
    if backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise EvaluationError(VLLM_NOT_INSTALLED)
