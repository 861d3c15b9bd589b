"""Are two equations, or two inequalities, the same statement?

They are if the difference of the sides of one is a constant multiple of that of the other: not
zero, and positive for an inequality (negative with the sign turned round).
"""

from fractions import Fraction
from typing import Any

from sft_dist.grading.evaluate import make_evaluator
from sft_dist.grading.evaluator import MPMATH_LOCK, UndefinedError
from sft_dist.grading.intervals import FLIPPED
from sft_dist.grading.limits import Budget
from sft_dist.grading.points import point_values
from sft_dist.grading.tree import Node, symbols
from sft_dist.grading.values import same_value

_NUM_POINTS = 8


def same_equation(left: tuple[Node, ...], right: tuple[Node, ...], *, budget: Budget) -> bool:
    """Compare `left[0] = left[1]` with `right[0] = right[1]`."""
    factor = _factor(_difference(left), _difference(right), budget)
    return factor is not None


def same_inequality(left: Node, right: Node, *, budget: Budget) -> bool:
    """Compare two inequalities of two sides each."""
    (first,), (second,) = left.value, right.value
    factor = _factor(_difference(left.args), _difference(right.args), budget)
    if factor is None:
        return False
    if first == second:
        return factor > 0 or first in ("=", "!=")
    return bool(FLIPPED[second] == first and factor < 0)


def _difference(sides: tuple[Node, ...]) -> Node:
    return Node("add", (sides[0], Node("neg", (sides[1],))))


def _factor(left: Node, right: Node, budget: Budget) -> float | None:
    """Return the constant c with left = c * right, or None. Its sign is what matters."""
    letters = sorted(symbols(left) | symbols(right))
    if not letters or symbols(left) != symbols(right):
        return None
    with MPMATH_LOCK:
        ratio = _ratio_somewhere(left, right, letters, budget)
    if ratio is None or ratio == 0:
        return None
    constant, sign = _ratio_node(ratio)
    equal, _ = same_value(left, Node("mul", (constant, right)), budget=budget)
    return sign if equal else None


def _ratio_somewhere(left: Node, right: Node, letters: list[str], budget: Budget) -> Any:
    """Return left / right where both are real and not zero."""
    for point in range(_NUM_POINTS):
        evaluator = make_evaluator(budget, digits=130, values=point_values(letters, point))
        try:
            first, second = evaluator.value(left), evaluator.value(right)
        except UndefinedError:
            continue
        if first == 0 or second == 0:
            return None
        if isinstance(first, Fraction) and isinstance(second, Fraction):
            return first / second
        first, second = evaluator.inexact(first), evaluator.inexact(second)
        if abs(first.imag) + abs(second.imag) == 0:
            return first.real / second.real
    return None


def _ratio_node(ratio: Any) -> tuple[Node, float]:
    """Make a leaf of a ratio, exact or not, and return its sign."""
    sign = 1.0 if ratio > 0 else -1.0
    if isinstance(ratio, Fraction):
        return Node("num", (), ratio), sign
    return Node("inexact", (), ratio), sign
