"""Learning rate at a step: linear warm-up, then cosine to 0. Pure."""

import math

WARMUP_STEPS = 100
WARMUP_SHARE = 0.1


def default_warmup_steps(total_steps: int) -> int:
    """100 steps, but at most a tenth of the run: MATH at batch 256 is 30 steps an epoch."""
    return min(WARMUP_STEPS, int(WARMUP_SHARE * total_steps))


def learning_rate_at(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rate of the update that follows `step` completed ones.

    The warm-up's first update already moves (1 / warmup_steps of the peak), and the last update of
    the run is the last step above 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
