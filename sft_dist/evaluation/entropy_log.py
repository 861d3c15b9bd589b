"""Entropies noted while an engine decodes, and averaged when it is done. torch; no vLLM.

Shape legend: B rows, V vocabulary.
"""

import logging
from collections.abc import Sequence

import torch

from sft_dist.evaluation.decoding import row_entropies

logger = logging.getLogger(__name__)

LOGITS_AT_ONCE, LOGITS_AT_ONCE_CPU = 10 * 2**20, 2**20
"""Three float32 tensors of as many live at once: 120 MB. On a CPU a tenth of it is four times
faster: memory of that size is fresh pages each time. 69 and 6 rows of Qwen2.5's vocabulary."""


class EntropyLog:
    """Entropies of the generated positions, kept on the device until all is decoded."""

    def __init__(self) -> None:
        self._steps: list[tuple[list[tuple[int, int]], torch.Tensor]] = []

    def clear(self) -> None:
        """Forget everything, before the next set of requests."""
        self._steps.clear()

    def append(self, places: list[tuple[int, int]], logits: torch.Tensor) -> None:
        """Note the entropy of each row of `logits` (B, V) at its place (request row, position)."""
        at_once = LOGITS_AT_ONCE_CPU if logits.device.type == "cpu" else LOGITS_AT_ONCE
        rows = max(1, at_once // logits.shape[1])
        chunks = [row_entropies(chunk) for chunk in logits.split(rows)]
        self._steps.append((places, torch.cat(chunks)))

    def means(self, num_tokens: Sequence[int]) -> list[float | None]:
        """Mean entropy by request row; None for a row with a position that was not seen.

        A position may be noted twice, when a prompt is read in pieces or a preempted request is
        read again; the last note is the one whose token was kept.
        """
        values: dict[tuple[int, int], float] = {}
        for places, entropies in self._steps:
            values.update(zip(places, entropies.tolist(), strict=True))
        return [self._mean(values, row, count) for row, count in enumerate(num_tokens)]

    @staticmethod
    def _mean(values: dict[tuple[int, int], float], row: int, count: int) -> float | None:
        found = [values[row, i] for i in range(count) if (row, i) in values]
        if not found or len(found) < count:
            logger.warning("entropy seen at %d of %d positions of a response", len(found), count)
            return None
        return sum(found) / count
