"""Two scorings of the same problems: what was gained and lost, and how sure that is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sft_dist.evaluation.statistics import Z95, mcnemar_p


@dataclass(frozen=True)
class Paired:
    """A later scoring against an earlier one, over the problems that both answered.

    `gained` and `lost` are problem numbers; `difference` is that of the accuracies (share), with
    its 95 % interval; `p_value` is that of McNemar's exact test; `right_in_both` and
    `right_in_neither` count the rest.
    """

    num_problems: int
    gained: list[int]
    lost: list[int]
    right_in_both: int
    right_in_neither: int
    difference: float
    interval: tuple[float, float]
    p_value: float


def compare(earlier: Mapping[int, float], later: Mapping[int, float]) -> Paired | None:
    """Compare shares of right answers (0..1) by problem; None when no problem is in both."""
    both = sorted(earlier.keys() & later.keys())
    if not both:
        return None
    changes = [later[i] - earlier[i] for i in both]
    gained = [i for i, change in zip(both, changes, strict=True) if change > 0]
    lost = [i for i, change in zip(both, changes, strict=True) if change < 0]
    same = [later[i] for i, change in zip(both, changes, strict=True) if change == 0]
    return Paired(
        num_problems=len(both),
        gained=gained,
        lost=lost,
        right_in_both=sum(share >= 0.5 for share in same),
        right_in_neither=sum(share < 0.5 for share in same),
        difference=sum(changes) / len(both),
        interval=difference_interval(changes),
        p_value=mcnemar_p(len(gained), len(lost)),
    )


def difference_interval(changes: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired changes, each from -1 to 1.

    Two observations are added, half a problem to each cell of the two-by-two table: this keeps
    its level where few answers change (Agresti and Min 2005, Statistics in Medicine 24, 729-740).
    """
    total = len(changes) + 2
    centre = sum(changes) / total
    squares = sum(change * change for change in changes) + 1  # one half gained, one half lost
    half = Z95 * math.sqrt(max(0.0, squares - total * centre * centre)) / total
    return max(-1.0, centre - half), min(1.0, centre + half)
