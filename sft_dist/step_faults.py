"""What can go wrong in a training step, and what is said and done about it.

No collective: every rank sees the same sums and so comes to the same decision.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sft_dist.config import TrainConfig
from sft_dist.engines.protocol import StepResult
from sft_dist.errors import NonFiniteError, OutOfMemoryError
from sft_dist.loss_spikes import LossSpikes
from sft_dist.out_of_memory import memory_advice

logger = logging.getLogger(__name__)

MOST_SKIPPED = 10
"""Updates left out in a row before a run ends after all: the weights are what is broken then."""


class StepFaults:
    """Looks at every step of one rank."""

    def __init__(self, config: TrainConfig, *, rank: int) -> None:
        self._config, self._rank = config, rank
        self._spikes = LossSpikes()
        self._skipped = 0

    @contextmanager
    def named(self, step: int) -> Iterator[None]:
        """Give an out-of-memory error its step, this rank, and what to lower."""
        try:
            yield
        except OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"step {step}, rank {self._rank}: {error}; {memory_advice(self._config)}"
            ) from error

    def look(self, step: int, result: StepResult, *, loss: float, example_ids: list[str]) -> None:
        """Judge a step that has been computed.

        Args:
            step: its number, from 1.
            result: of the engine.
            loss: mean of the global batch.
            example_ids: of this rank.

        Raises:
            NonFiniteError: when no update was made, and `--on_nonfinite` or the number of such
                steps in a row ends the run.
        """
        if result.applied:
            self._skipped = 0
            self._tell_spike(step, result, loss)
        else:
            self._leave_out(step, self._what(result, example_ids))

    def _what(self, result: StepResult, example_ids: list[str]) -> str:
        if result.culprits:
            return f"expected a finite loss, found {result.culprits}"
        return (
            f"expected a finite gradient, found norm {result.grad_norm_preclip} of finite losses; "
            f"rank {self._rank} had the examples {', '.join(example_ids)}"
        )

    def _leave_out(self, step: int, what: str) -> None:
        self._skipped += 1
        told = f"step {step}: {what}. No update was made"
        if self._config.optimizer.on_nonfinite == "stop":
            raise NonFiniteError(
                f"{told}. Look at these examples, lower --learning_rate, or leave such steps out "
                "by --on_nonfinite skip"
            )
        if self._skipped >= MOST_SKIPPED:
            raise NonFiniteError(
                f"{told}, nor in the {MOST_SKIPPED - 1} steps before: the weights are broken. "
                "Resume from an earlier checkpoint with a lower --learning_rate"
            )
        if self._rank == 0 or not what.startswith("expected a finite loss"):
            logger.warning("%s; training goes on (--on_nonfinite skip)", told)

    def _tell_spike(self, step: int, result: StepResult, loss: float) -> None:
        """On rank 0, and on ranks that had a part in it."""
        usual = self._spikes.judge(loss)
        if usual is None:
            return
        worst = max(result.micro_batch_losses, key=lambda found: found.loss, default=None)
        if self._rank == 0:
            logger.warning("step %d: loss spike, %.4f; usual is %s", step, loss, usual)
        if worst is not None and worst.loss >= loss:
            logger.warning(
                "step %d: loss %.4f in the micro-batch of %s",
                step, worst.loss, ", ".join(worst.example_ids),
            )  # fmt: skip
