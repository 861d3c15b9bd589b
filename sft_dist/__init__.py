"""Full-parameter supervised fine-tuning on MATH, with evaluation that training does not wait for.

`from sft_dist import compute_entropy` and the like work, and load what they need only then:
`import sft_dist` alone imports nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "tokenize_prompt_and_output": "sft_dist.functions",
    "get_response_log_probs": "sft_dist.functions",
    "masked_normalize": "sft_dist.functions",
    "sft_microbatch_train_step": "sft_dist.functions",
    "compute_entropy": "sft_dist.loss",
    "log_generations": "sft_dist.evaluation.generations",
    "question_only_reward_fn": "sft_dist.grading",
    "r1_zero_reward_fn": "sft_dist.grading",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
