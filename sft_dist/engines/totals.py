"""One step's micro-batches: their sums, kept on the device, and which of them went wrong."""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import TypedDict

import torch
import torch.distributed as dist
from torch import Tensor

from sft_dist.data.packing import MicroBatch
from sft_dist.engines.protocol import MicroBatchLoss
from sft_dist.errors import OutOfMemoryError
from sft_dist.loss import TokenScores
from sft_dist.out_of_memory import describe_micro_batch, is_out_of_memory


class StepSums(TypedDict):
    """What `StepResult` takes from here."""

    loss_sum: float
    objective_sum: float
    entropy_sum: float
    num_correct: float
    culprits: str
    micro_batch_losses: tuple[MicroBatchLoss, ...]


class StepTotals:
    """Loss, entropy and correct tokens of one step: this rank's, then all ranks'.

    As a context it names the micro-batch under way when memory runs out.
    """

    def __init__(self, device: torch.device, num_micro_batches: int) -> None:
        """`num_micro_batches` of the step, as many on every rank."""
        self._device = device
        self._num_micro_batches = num_micro_batches
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)
        self._batches: list[MicroBatch] = []
        self._losses: list[Tensor] = []
        self._under_way: MicroBatch | None = None
        self._exchange: dist.Work | None = None

    def __enter__(self) -> "StepTotals":
        """The step begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """The step ends.

        Raises:
            OutOfMemoryError: instead of whatever a full memory has raised inside.
        """
        if error is not None and is_out_of_memory(error):
            under_way = self._under_way
            where = "the update" if under_way is None else describe_micro_batch(under_way)
            raise OutOfMemoryError(f"memory ran out in {where} ({error})") from error

    def begin(self, batch: MicroBatch) -> MicroBatch:
        """The micro-batch on the device, before anything is computed with it."""
        self._under_way = batch
        return batch.to(self._device)

    def add(self, scores: TokenScores) -> Tensor:
        """Count the micro-batch under way; its loss, which carries the gradient.

        With the last one of a step the sums are complete, and go to the other ranks while the
        backward pass computes. Collective then.

        The gradient of a loss that is not finite is made NaN, whatever it is (that of an infinite
        loss can be finite): then every engine finds that norm and leaves the update out.
        """
        assert self._under_way is not None
        objective, loss = scores.loss.detach(), -scores.log_probs.sum()
        if not self._under_way.is_stand_in:
            parts = (loss, objective, scores.entropy.sum(), scores.correct.sum())
            # float64, so that the logged sum does not depend on how the batch was cut.
            self._sums += torch.stack(parts).double()
        self._batches.append(self._under_way)
        self._losses += [loss.double(), objective.double()]
        if len(self._batches) == self._num_micro_batches and dist.is_initialized():
            self._exchange = dist.all_reduce(self._sums, async_op=True)
        return scores.loss * torch.where(objective.isfinite(), 1.0, math.nan)

    def reduce(self) -> StepSums:
        """The sums over all ranks, after the last backward pass. The step's one host sync."""
        self._under_way = None
        if self._exchange is not None:
            self._exchange.wait()
        values = torch.cat([self._sums, torch.stack(self._losses)]).tolist()
        loss, objective, entropy, correct = values[:4]
        mine = list(zip(self._batches, values[4::2], values[5::2], strict=True))
        finite = math.isfinite(loss) and math.isfinite(objective)
        return StepSums(
            loss_sum=loss,
            objective_sum=objective,
            entropy_sum=entropy,
            num_correct=correct,
            culprits="" if finite else _culprits(mine),
            micro_batch_losses=tuple(
                MicroBatchLoss(loss / batch.num_target_tokens, batch.example_ids)
                for batch, loss, _ in mine
                if batch.num_target_tokens
            ),
        )


def _culprits(mine: Sequence[tuple[MicroBatch, float, float]]) -> str:
    """The micro-batches of all ranks whose loss is not finite. Collective."""
    bad = [
        (objective if math.isfinite(loss) else loss, batch.example_ids)
        for batch, loss, objective in mine
        if not math.isfinite(loss) or not math.isfinite(objective)
    ]
    found = [bad]
    if dist.is_initialized():
        found = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(found, bad)
    lines = [
        f"rank {rank}: loss {loss} in the micro-batch of {', '.join(ids)}"
        for rank, bad in enumerate(found)
        for loss, ids in bad
    ]
    return "; ".join(lines or ["one in the sum"])
