"""What the training loop asks of an engine, whichever it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from sft_dist.data.packing import MicroBatch
from sft_dist.optimizer_state import OptimizerState


@dataclass(frozen=True)
class MicroBatchLoss:
    """One micro-batch of this rank."""

    loss: float
    """Mean over its target tokens, nats."""
    example_ids: tuple[str, ...]


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, over all ranks."""

    loss_sum: float
    """Sum of the token losses of the global batch, nats, unweighted."""
    objective_sum: float
    """The same with each token's weight: what `normalizer` divides."""
    entropy_sum: float
    """Sum of the entropies at the same positions, nats."""
    num_correct: float
    """Target tokens that were the most probable ones."""
    grad_norm_preclip: float
    """2-norm of the gradient of the global batch's loss, before clipping."""
    applied: bool
    """False when a loss or the gradient was not finite: no parameter was changed then."""
    culprits: str = ""
    """Ranks and examples of the losses that are not finite; empty when all are."""
    micro_batch_losses: tuple[MicroBatchLoss, ...] = ()
    """Of this rank."""


class Engine(Protocol):
    """A sharded or replicated model with its optimizer. Every method is collective."""

    def train_step(
        self,
        micro_batches: Sequence[MicroBatch],
        normalizer: float,
        learning_rate: float,
    ) -> StepResult:
        """One update from this rank's micro-batches; equally many on every rank.

        Args:
            micro_batches: with the weight of each token.
            normalizer: what the weighted sum of the whole global batch's losses is divided by.
            learning_rate: of this update.

        Raises:
            OutOfMemoryError: naming the micro-batch, on the rank whose memory it is.
        """
        ...

    def log_probs(self, micro_batch: MicroBatch) -> Tensor:
        """(N,) log-probabilities of the target tokens, without gradient."""
        ...

    @property
    def causal_lm(self) -> nn.Module:
        """What is trained, for its configurations; its parameters may be shards."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor | None]]:
        """Each parameter whole, by Hugging Face name, in the type of the computation; to the end.

        On rank 0, good until the next one is taken; None on the others.
        """
        ...

    def optimizer_state(self) -> OptimizerState:
        """What this rank saves of it: views of the engine's memory, good until the next step."""
        ...

    def load_state(self, directory: Path) -> None:
        """Read what was saved of any engine's `optimizer_state` at any world size.

        The weights themselves are those of the model directory the engine was built from.
        """
        ...
