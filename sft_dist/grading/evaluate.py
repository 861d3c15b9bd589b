"""Evaluate a tree, exactly where that is possible and else to a given number of digits."""

from collections.abc import Mapping
from fractions import Fraction

from sft_dist.grading import arithmetic, transcendental, whole_numbers
from sft_dist.grading.evaluator import Evaluator
from sft_dist.grading.limits import Budget

_HANDLERS = {**arithmetic.HANDLERS, **whole_numbers.HANDLERS, **transcendental.HANDLERS}


def make_evaluator(
    budget: Budget, *, digits: int = 40, values: Mapping[str, Fraction] | None = None
) -> Evaluator:
    """Return an evaluator of every operation that has a value; letters take `values`."""
    return Evaluator(budget, _HANDLERS, digits=digits, values=values)
