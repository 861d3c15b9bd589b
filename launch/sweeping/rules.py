"""Large-batch rules: what changes with the global batch when the learning rate is known for one.

The square-root rule is the one for Adam (Malladi et al. 2022, arXiv:2205.10287, without its change
of the betas, which matters for far larger factors); the linear rule is the one for SGD (Goyal et
al. 2017, arXiv:1706.02677). Both are guesses to start a sweep from, not laws.
"""

import math
from typing import Any

from launch.sweeping.description import Rules


def apply_rules(rules: Rules, flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a cell after the rules; `learning_rate` becomes the one that is used."""
    changed = dict(flags)
    batch = flags.get("global_batch_size")
    if rules.learning_rate and batch:
        assert rules.reference_batch is not None
        factor = scale_factor(rules.learning_rate, batch / rules.reference_batch)
        # Seven digits: a name without rounding errors in it.
        changed["learning_rate"] = float(f"{flags['learning_rate'] * factor:.6e}")
    if rules.warmup_examples and batch:
        changed["warmup_steps"] = math.ceil(rules.warmup_examples / batch)
    return changed


def scale_factor(rule: str, ratio: float) -> float:
    """By what the learning rate is multiplied when the batch is `ratio` times the reference."""
    return ratio if rule == "linear" else math.sqrt(ratio)
