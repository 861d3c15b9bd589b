"""Sums over the micro-batches of a step, kept on the device until one check before the update."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from sft_dist.data.packing import MicroBatch
from sft_dist.errors import NonFiniteError
from sft_dist.loss import TokenScores


class StepTotals:
    """Loss, entropy and correct tokens of one step: this rank's, then all ranks'."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._losses: list[tuple[Tensor, tuple[str, ...]]] = []

    def add(self, batch: MicroBatch, scores: TokenScores) -> Tensor:
        """Count a micro-batch; its loss, which carries the gradient."""
        objective = scores.loss.detach()
        if not batch.is_stand_in:
            parts = (-scores.log_probs.sum(), objective, scores.entropy.sum(), scores.correct.sum())
            # float64, so that the logged sum does not depend on how the batch was cut.
            self._sums += torch.stack(parts).double()
        self._losses.append((objective, batch.example_ids))
        return scores.loss

    def reduce(self) -> dict[str, float]:
        """The sums of `StepResult` over all ranks. Collective; the step's one host sync.

        Raises:
            NonFiniteError: on every rank, naming the ranks and examples of the bad losses.
        """
        if dist.is_initialized():
            dist.all_reduce(self._sums)
        loss, objective, entropy, correct = self._sums.tolist()
        if not math.isfinite(loss) or not math.isfinite(objective):
            raise NonFiniteError(self._culprits())
        return {
            "loss_sum": loss,
            "objective_sum": objective,
            "entropy_sum": entropy,
            "num_correct": correct,
        }

    def _culprits(self) -> str:
        mine = [(float(loss), ids) for loss, ids in self._losses if not math.isfinite(float(loss))]
        found: list[list[tuple[float, tuple[str, ...]]]] = [mine]
        if dist.is_initialized():
            found = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(found, mine)
        lines = [
            f"rank {rank}: loss {loss} in the micro-batch of {', '.join(ids)}"
            for rank, bad in enumerate(found)
            for loss, ids in bad
        ]
        return (
            "expected a finite loss, found " + "; ".join(lines or ["one in the sum"]) + ". "
            "No update was made. Look at these examples, or lower --learning_rate"
        )
