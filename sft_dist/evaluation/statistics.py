"""The small formulas behind an evaluation's figures, each with its source. Pure Python.

A *share* is a problem's part of right answers: 0 or 1 when it was answered once, k/n when n
answers were sampled.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Problem = TypeVar("Problem", bound=Hashable)

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None


def weighted_mean(weighted: Iterable[tuple[float, float]]) -> float | None:
    """Of (value, weight) pairs; None where nothing has a weight."""
    pairs = list(weighted)
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def shares_by_problem(answers: Iterable[tuple[Problem, float]]) -> dict[Problem, float]:
    """The share of each problem from (problem, 1 or 0) of every answer, in order of appearance."""
    found: dict[Problem, list[float]] = defaultdict(list)
    for problem, right in answers:
        found[problem].append(right)
    return {problem: sum(values) / len(values) for problem, values in found.items()}


def standard_error(shares: Sequence[float]) -> float | None:
    """Of the mean over problems: sqrt(variance / n).

    With one answer a problem this is sqrt(p (1 - p) / n); with several, the answers to one problem
    are a cluster (Miller 2024, arXiv 2411.00640, section 2.2: clustered standard errors).
    """
    if not shares:
        return None
    centre = sum(shares) / len(shares)
    variance = sum((share - centre) ** 2 for share in shares) / len(shares)
    return math.sqrt(variance / len(shares))


def wilson_interval(rate: float, count: int) -> tuple[float, float]:
    """95 % interval of a rate of `count` trials (Wilson 1927, JASA 22, 209-212).

    Unlike rate ± 1.96 standard errors it stays within 0..1 and has a width at rates 0 and 1.
    """
    z2 = Z95 * Z95
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    spread = math.sqrt(rate * (1 - rate) / count + z2 / (4 * count * count))
    half = Z95 * spread / (1 + z2 / count)
    # Exactly 0 and 1 there, where rounding leaves 1e-17.
    return (0.0 if rate == 0 else centre - half), (1.0 if rate == 1 else centre + half)


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the problems that changed, half were gained.

    A fair coin thrown `gained + lost` times (McNemar 1947, Psychometrika 12, 153-157, in its exact
    form; with shares instead of 0 and 1 it is the sign test).
    """
    changed = gained + lost
    # By logarithms: the whole numbers have 1,500 digits when 5,000 problems change.
    everything = math.lgamma(changed + 1) - changed * math.log(2)
    tail = math.fsum(
        math.exp(everything - math.lgamma(i + 1) - math.lgamma(changed - i + 1))
        for i in range(min(gained, lost) + 1)
    )
    return min(1.0, 2 * tail)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that one of k answers drawn from n is right: 1 - C(n - c, k) / C(n, k), unbiased.

    Chen et al. 2021 (arXiv 2107.03374), equation 1, in whole numbers, so that nothing overflows.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"expected 1 <= k <= {num_samples} samples, found k = {k}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def reported_ks(num_samples: int) -> list[int]:
    """The k of pass@k that are reported: powers of two, and the number of samples itself."""
    powers = [2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples]
    return sorted({*powers, num_samples})
