"""Are two expressions the same number, or the same function of their letters?

Numbers: exactly where both are rational; else by evaluating at two precisions. Equal numbers agree
better the more digits are taken, different ones do not. Functions: by evaluating at fixed points
that look random, exactly where the tree is rational (two different rational functions of the
degrees that fit here agree at such a point with a chance under one in a thousand, and eight points
are taken). See `points` for where they lie.
"""

from fractions import Fraction
from typing import Any

from sft_dist.grading.evaluate import make_evaluator
from sft_dist.grading.evaluator import MPMATH_LOCK, Evaluator, UndefinedError
from sft_dist.grading.limits import Budget, OverLimitError
from sft_dist.grading.points import NUM_POINTS, Points, Values
from sft_dist.grading.tree import Node, contains, key, symbols

_LOW_DIGITS, _HIGH_DIGITS = 40, 110
_MAX_DIGITS = 4_000
_MIN_REAL_POINTS = 3
_MAX_LETTERS = 26


def same_value(left: Node, right: Node, *, budget: Budget) -> tuple[bool, str]:
    """Decide whether two expressions are equal, and say by which stage.

    Raises:
        OverLimitError: It cannot be decided within the budget or the precision.
    """
    if key(left) == key(right):
        return True, "structural"
    letters = symbols(left) | symbols(right)
    with MPMATH_LOCK:
        if not letters:
            return _same_number(left, right, {}, budget)
        if len(letters) > _MAX_LETTERS:
            raise OverLimitError("too many letters")
        return _same_function(left, right, sorted(letters), budget), "symbolic"


def _same_number(left: Node, right: Node, values: Values, budget: Budget) -> tuple[bool, str]:
    try:
        return _compare(left, right, values, budget)
    except UndefinedError:
        return False, "numeric"


def _compare(left: Node, right: Node, values: Values, budget: Budget) -> tuple[bool, str]:
    low = make_evaluator(budget, digits=_LOW_DIGITS, values=values)
    first, second = low.value(left), low.value(right)
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        whole = first.denominator == second.denominator == 1
        return first == second, "integer" if whole else "rational"
    low_gap = abs(low.inexact(first) - low.inexact(second))
    if low.log10_range < _LOW_DIGITS / 2 and low_gap > _scale(low, first, second) / 10**9:
        return False, "numeric"
    return _confirm(left, right, values, budget, low_gap, low.log10_range), "numeric"


def _confirm(
    left: Node, right: Node, values: Values, budget: Budget, low_gap: Any, log10_range: float
) -> bool:
    digits = _HIGH_DIGITS + int(2.2 * log10_range)
    if digits > _MAX_DIGITS:
        raise OverLimitError("values too large or too small to tell apart")
    budget.spend(digits // 10)
    high = make_evaluator(budget, digits=digits, values=values)
    first, second = high.value(left), high.value(right)
    gap = abs(high.inexact(first) - high.inexact(second))
    ten = high.context.mpf(10)
    if gap == 0 or gap <= _scale(high, first, second) * ten ** (20 - digits):
        return True
    # the rest of a cancellation (a sum that is really zero) shrinks with the precision
    return bool(low_gap > 0 and gap <= low_gap * ten ** (30 + _LOW_DIGITS - digits))


def _scale(evaluator: Evaluator, first: Any, second: Any) -> Any:
    return max(abs(evaluator.inexact(first)), abs(evaluator.inexact(second)))


# Functions of letters


def _same_function(left: Node, right: Node, letters: list[str], budget: Budget) -> bool:
    """Equal wherever both are real; where one is not, equality is asked for only without others."""
    complex_numbers = (contains(left, "const") and _has_i(left)) or _has_i(right)
    points = Points(left, right, letters)
    num_real = num_equal = num_unequal = 0
    for point in range(NUM_POINTS):
        try:
            equal, real = _compare_at(left, right, points.values(point), budget)
        except UndefinedError:
            continue
        except OverLimitError:
            if not points.may_fail(point):
                raise
            continue
        if not equal and (real or complex_numbers):
            return False
        num_real += equal and real
        num_equal += equal
        num_unequal += not equal
    if num_unequal and num_real < _MIN_REAL_POINTS:
        return False
    return num_equal >= _MIN_REAL_POINTS


def _has_i(node: Node) -> bool:
    if node.op == "const":
        return bool(node.value == "i")
    return any(_has_i(arg) for arg in node.args)


def _compare_at(left: Node, right: Node, values: Values, budget: Budget) -> tuple[bool, bool]:
    """Return whether they are equal at a point, and whether both are real there, part by part.

    So `sqrt(x) sqrt(y)` is compared with `sqrt(xy)` where its roots exist.
    """
    probe = make_evaluator(budget, digits=20, values=values)
    for side in (left, right):
        probe.value(side)
    return _compare(left, right, values, budget)[0], not probe.met_complex
