"""Values of what counts: factorials, binomials, sums, digits, rounding, divisors."""

import math
from fractions import Fraction
from typing import Any

from sft_dist.grading.arithmetic import plus, times
from sft_dist.grading.evaluator import Evaluator, Handler, UndefinedError
from sft_dist.grading.limits import MAX_BITS, MAX_FACTORIAL, MAX_TERMS, OverLimitError
from sft_dist.grading.tree import Node, number, replace

_TERM_COST = 30  # of one term of a sum, for the tree that is built
FUNCTIONS = frozenset(["floor", "ceil", "gcd", "lcm", "max", "min", "mod"])


def _whole(value: Any, low: int, high: int) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not low <= value <= high:
        raise OverLimitError("expected a small whole number")
    return int(value)


def _fact(evaluator: Evaluator, node: Node) -> Fraction:
    value = evaluator.value(node.args[0])
    if isinstance(value, Fraction) and (value < 0 or value.denominator != 1):
        raise UndefinedError("factorial of what is no whole number")
    argument = _whole(value, 0, MAX_FACTORIAL)
    evaluator.spend(argument)
    return Fraction(math.factorial(argument))


def _binom(evaluator: Evaluator, node: Node) -> Any:
    top, bottom = (evaluator.value(arg) for arg in node.args)
    if (
        isinstance(top, Fraction)
        and top.denominator == 1
        and top >= 0
        and isinstance(bottom, Fraction)
        and bottom.denominator == 1
    ):
        if bottom < 0 or bottom > top:
            return Fraction(0)
        bottom = min(bottom, top - bottom)
    count = _whole(bottom, 0, MAX_TERMS)
    result: Any = Fraction(1)
    for step in range(count):
        result = times(evaluator, result, plus(evaluator, top, Fraction(-step)))
        result = times(evaluator, result, Fraction(1, step + 1))
    return result


def _based(evaluator: Evaluator, node: Node) -> Fraction:
    digits, radix = node.value
    return Fraction(int(digits, radix))


def _big(evaluator: Evaluator, node: Node) -> Any:
    low = _whole(evaluator.value(node.args[0]), -MAX_BITS, MAX_BITS)
    high = _whole(evaluator.value(node.args[1]), -MAX_BITS, MAX_BITS)
    if high - low >= MAX_TERMS:
        raise OverLimitError("a sum with too many terms")
    join, total = (plus, Fraction(0)) if node.op == "sum" else (times, Fraction(1))
    for index in range(low, high + 1):
        evaluator.spend(_TERM_COST)
        term = evaluator.value(replace(node.args[2], node.value, number(index)))
        total = join(evaluator, total, term)
    return total


def integer_function(evaluator: Evaluator, name: str, values: list[Any]) -> Any:
    """Return the value of one of `FUNCTIONS`."""
    if name in ("floor", "ceil"):
        return _round(evaluator, name, values[0])
    if name in ("max", "min"):
        if any(not isinstance(value, Fraction) for value in values):
            raise OverLimitError("max or min of inexact values")
        return max(values) if name == "max" else min(values)
    whole = [_whole(value, -(10**30), 10**30) for value in values]
    if name == "mod":
        if len(whole) != 2 or whole[1] == 0:
            raise UndefinedError("remainder of a division by zero")
        return Fraction(whole[0] % whole[1])
    return Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))


def _round(evaluator: Evaluator, name: str, value: Any) -> Fraction:
    if isinstance(value, Fraction):
        return Fraction(math.floor(value) if name == "floor" else math.ceil(value))
    if value.imag != 0 or abs(value) > 10**15:
        raise OverLimitError("rounding a complex or huge value")
    nearest = int(evaluator.context.nint(value.real))
    if abs(value.real - nearest) < evaluator.context.mpf(10) ** -20:
        raise OverLimitError("rounding a value that may be whole")
    below = nearest if value.real > nearest else nearest - 1
    return Fraction(below if name == "floor" else below + 1)


HANDLERS: dict[str, Handler] = {
    "fact": _fact, "binom": _binom, "based": _based, "sum": _big, "prod": _big,
}  # fmt: skip
