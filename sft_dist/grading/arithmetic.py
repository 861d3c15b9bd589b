"""Values of sums, products, powers and roots; exact where the operands are."""

import math
from fractions import Fraction
from typing import Any

from sft_dist.grading.evaluator import (
    MPMATH_COST,
    Evaluator,
    Handler,
    UndefinedError,
    is_zero,
    log10_size,
    negligible,
)
from sft_dist.grading.limits import MAX_BITS, OverLimitError
from sft_dist.grading.tree import Node


def _add(evaluator: Evaluator, node: Node) -> Any:
    total = evaluator.value(node.args[0])
    for arg in node.args[1:]:
        total = plus(evaluator, total, evaluator.value(arg))
    return total


def plus(evaluator: Evaluator, left: Any, right: Any) -> Any:
    """Add, exactly if both are exact."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return evaluator.bounded(left + right)
    return evaluator.inexact(left) + evaluator.inexact(right)


def _mul(evaluator: Evaluator, node: Node) -> Any:
    product = evaluator.value(node.args[0])
    for arg in node.args[1:]:
        product = times(evaluator, product, evaluator.value(arg))
    return product


def times(evaluator: Evaluator, left: Any, right: Any) -> Any:
    """Multiply, exactly if both are exact."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return evaluator.bounded(left * right)
    if is_zero(left) or is_zero(right):
        return Fraction(0)
    return evaluator.inexact(left) * evaluator.inexact(right)


def _neg(evaluator: Evaluator, node: Node) -> Any:
    return -evaluator.value(node.args[0])


def _div(evaluator: Evaluator, node: Node) -> Any:
    top, bottom = evaluator.value(node.args[0]), evaluator.value(node.args[1])
    if negligible(evaluator, bottom):
        raise UndefinedError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return evaluator.bounded(top / bottom)
    return evaluator.inexact(top) / evaluator.inexact(bottom)


def _pow(evaluator: Evaluator, node: Node) -> Any:
    return power(evaluator, evaluator.value(node.args[0]), evaluator.value(node.args[1]))


def _root(evaluator: Evaluator, node: Node) -> Any:
    radicand, index = evaluator.value(node.args[0]), evaluator.value(node.args[1])
    if is_zero(index):
        raise UndefinedError("root of index zero")
    exponent = 1 / index if isinstance(index, Fraction) else 1 / evaluator.inexact(index)
    return power(evaluator, radicand, exponent)


def power(evaluator: Evaluator, base: Any, exponent: Any) -> Any:
    """Raise to a power; a root of odd index of a negative number is the real one."""
    if is_zero(base):
        return _power_of_zero(exponent)
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _integer_power(evaluator, base, int(exponent))
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        found = _exact_root(evaluator, base, exponent)
        if found is not None:
            return found
    if _is_negative(base) and isinstance(exponent, Fraction) and exponent.denominator % 2:
        size = power(evaluator, -base, exponent)
        return -size if exponent.numerator % 2 else size
    return _inexact_power(evaluator, base, exponent)


def _is_negative(base: Any) -> bool:
    """True for a real number below zero; rounding may leave an imaginary part of other ones."""
    return bool(base.imag == 0 and base.real < 0)


def _power_of_zero(exponent: Any) -> Fraction:
    if not isinstance(exponent, Fraction) or exponent <= 0:
        raise UndefinedError("zero to a power that is not positive")
    return Fraction(0)


def _integer_power(evaluator: Evaluator, base: Any, exponent: int) -> Any:
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits > 1 and bits * abs(exponent) > MAX_BITS:
            raise OverLimitError("an exact power with too many digits")
        if abs(exponent) > MAX_BITS:
            return Fraction(1) if base == 1 or exponent % 2 == 0 else base
        return evaluator.bounded(base**exponent)
    evaluator.note_size(log10_size(base) * exponent)
    evaluator.spend(MPMATH_COST)
    return base**exponent


def _exact_root(evaluator: Evaluator, base: Fraction, exponent: Fraction) -> Fraction | None:
    index = exponent.denominator
    if base < 0 or index > 64:
        return None
    top, bottom = _integer_root(base.numerator, index), _integer_root(base.denominator, index)
    if top is None or bottom is None:
        return None
    found = _integer_power(evaluator, Fraction(top, bottom), exponent.numerator)
    assert isinstance(found, Fraction)
    return found


def _integer_root(value: int, index: int) -> int | None:
    if value.bit_length() > 4_000:
        return None
    low, high = 0, 1 << (value.bit_length() // index + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**index <= value else (low, middle - 1)
    return low if low**index == value else None


def _inexact_power(evaluator: Evaluator, base: Any, exponent: Any) -> Any:
    base, exponent = evaluator.inexact(base), evaluator.inexact(exponent)
    size = evaluator.context.log(base) * exponent
    evaluator.note_size(float(size.real) / math.log(10) if abs(size) < 10**9 else math.inf)
    return evaluator.context.power(base, exponent)


HANDLERS: dict[str, Handler] = {
    "num": lambda evaluator, node: node.value,
    "inexact": lambda evaluator, node: node.value,
    "sym": lambda evaluator, node: evaluator.symbol(node.value),
    "add": _add, "mul": _mul, "neg": _neg, "div": _div, "pow": _pow, "root": _root,
}  # fmt: skip
