"""What the loss of a global batch is divided by. Pure numbers, no torch.

The loss that a step minimises is `sum(weight x token loss) / normalizer` over all target tokens of
the global batch, on whichever rank and in whichever micro-batch they stand.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LossNormalization:
    """The three forms that are in use.

    * `tokens`: the mean over the target tokens of the global batch; every token counts the same.
    * `sequences`: the mean over examples of each example's token mean; every example counts the
      same, and so a token of a short one counts more.
    * `constant`: the mean over examples of each one's token sum divided by a constant, as
      `masked_normalize` and `sft_microbatch_train_step` of Stanford CS336, assignment 5.
    """

    form: Literal["tokens", "sequences", "constant"] = "tokens"
    constant: float = 1.0

    def token_weight(self, num_target_tokens: int) -> float:
        """Weight of each target token of an example that has `num_target_tokens`."""
        return 1.0 / num_target_tokens if self.form == "sequences" else 1.0

    def normalizer(self, *, num_examples: int, num_target_tokens: int) -> float:
        """What the weighted sum is divided by; both counts are those of the whole global batch."""
        if self.form == "tokens":
            return float(num_target_tokens)
        return num_examples * (self.constant if self.form == "constant" else 1.0)


def engine_loss_scale(*, normalizer: float, averaged_over: int = 1, divided_by: int = 1) -> float:
    """Factor on a micro-batch's summed loss that makes the update that of the global batch's loss.

    The one place that knows it. With `S` the weighted sum of the token losses of a micro-batch, the
    gradient wanted is that of sum(S) / normalizer over all micro-batches and ranks.

    Args:
        normalizer: see `LossNormalization.normalizer`.
        averaged_over: ranks, where the engine averages gradients instead of summing them.
        divided_by: what else the engine divides the loss by (accumulation steps).
    """
    return averaged_over * divided_by / normalizer
