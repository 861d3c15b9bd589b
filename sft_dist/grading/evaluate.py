"""Evaluate a tree, exactly where that is possible and else to a given number of digits.

Values are `Fraction` (exact) or numbers of an `mpmath` context. Letters take the values given.
mpmath is imported by the first evaluation that needs it. It keeps precision and constants in shared
state, so one lock guards it.
"""

import math
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from sft_dist.grading.limits import (
    MAX_BITS,
    MAX_DENOMINATOR_BITS,
    MAX_FACTORIAL,
    MAX_TERMS,
    Budget,
    OverLimitError,
)
from sft_dist.grading.tree import Node, key, number, replace

MPMATH_LOCK = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=MPMATH_LOCK.acquire, after_in_parent=MPMATH_LOCK.release,
                        after_in_child=MPMATH_LOCK.release)  # fmt: skip

_MAX_LOG10 = 5_000.0  # of the size of an inexact value
_MAX_ANGLE = 10**12  # reducing a larger one costs precision
_MPMATH_COST = 8
_TERM_COST = 30


class UndefinedError(Exception):
    """There is no value here: a division by zero, the logarithm of zero."""


class Evaluator:
    """Computes values at one precision.

    Attributes:
        log10_range: The largest size or smallness (decimal exponent) of a power met on the way;
            sums of such values need that many digits more.
    """

    def __init__(
        self, budget: Budget, *, digits: int = 40, values: Mapping[str, Fraction] | None = None
    ) -> None:
        self._budget = budget
        self._digits = digits
        self._values = values or {}
        self._context: Any = None
        self.log10_range = 0.0

    def value(self, node: Node) -> Any:
        """Return the value of `node`.

        Raises:
            UndefinedError: There is none at this point.
            OverLimitError: It is out of reach, or the tree is no expression.
        """
        self._budget.spend()
        handler = _HANDLERS.get(node.op)
        if handler is None:
            raise OverLimitError(f"no value for {node.op}")
        return handler(self, node)

    @property
    def context(self) -> Any:
        """The mpmath context with our precision; its own, so that the global one stays as it is."""
        if self._context is None:
            self._context = _mpmath_context()
            self._context.dps = self._digits
        self._budget.spend(_MPMATH_COST)
        return self._context

    def inexact(self, value: Any) -> Any:
        """Turn an exact value into one of mpmath."""
        if isinstance(value, Fraction):
            return self.context.mpf(value.numerator) / value.denominator
        return value

    def bounded(self, value: Fraction) -> Fraction:
        """Charge for the size of an exact value and refuse too large ones."""
        bits = value.numerator.bit_length()
        denominator_bits = value.denominator.bit_length()
        if bits > MAX_BITS or denominator_bits > MAX_DENOMINATOR_BITS:
            raise OverLimitError("an exact value with too many digits")
        self._budget.spend((bits + 10 * denominator_bits) // 100)
        return value

    def symbol(self, name: str) -> Fraction:
        """Return the value of a letter."""
        if name not in self._values:
            raise OverLimitError(f"no value for the letter {name}")
        return self._values[name]

    def note_size(self, log10_size: float) -> None:
        """Remember how far from 1 a power lies."""
        if not abs(log10_size) <= _MAX_LOG10:
            raise OverLimitError("a value too large or too small")
        self.log10_range = max(self.log10_range, abs(log10_size))

    def spend(self, cost: int) -> None:
        """Charge the budget."""
        self._budget.spend(cost)


_CONTEXTS: list[Any] = []


def _mpmath_context() -> Any:
    if not _CONTEXTS:
        import mpmath

        _CONTEXTS.append(mpmath.MPContext())
    return _CONTEXTS[0]


def opaque_value(text: str) -> Fraction:
    """Return a number that stands for a name: fixed, and unlike that of any other name."""
    low, high = zlib.crc32(text.encode()), zlib.adler32(text[::-1].encode())
    return Fraction(1 + (low * 65_537 + high) % 999_983, 100_003)


def is_zero(value: Any) -> bool:
    """True for a zero."""
    return bool(value == 0)


def log10_size(value: Any) -> float:
    """Return the decimal exponent of a value that is not zero."""
    if isinstance(value, Fraction):
        bits = value.numerator.bit_length() - value.denominator.bit_length()
        return bits * math.log10(2)
    magnitude = max(part.exp + part.bc for part in (_mantissa(value.real), _mantissa(value.imag)))
    return float(magnitude) * math.log10(2)


class _Mantissa:
    def __init__(self, exp: float, bc: float) -> None:
        self.exp, self.bc = exp, bc


def _mantissa(value: Any) -> _Mantissa:
    _, man, exp, bc = value._mpf_
    return _Mantissa(exp, bc) if man else _Mantissa(-math.inf, 0)


# Arithmetic


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
    if _negligible(evaluator, bottom):
        raise UndefinedError("division by zero")
    if isinstance(top, Fraction) and isinstance(bottom, Fraction):
        return evaluator.bounded(top / bottom)
    return evaluator.inexact(top) / evaluator.inexact(bottom)


def _negligible(evaluator: Evaluator, value: Any) -> bool:
    """Zero, or what rounding leaves of a zero."""
    if isinstance(value, Fraction) or is_zero(value):
        return is_zero(value)
    return bool(abs(value) < evaluator.context.mpf(10) ** (-0.7 * evaluator.context.dps))


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
    negative = isinstance(base, Fraction) and base < 0
    if negative and isinstance(exponent, Fraction) and exponent.denominator % 2:
        size = power(evaluator, -base, exponent)
        return -size if exponent.numerator % 2 else size
    return _inexact_power(evaluator, base, exponent)


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
    evaluator.spend(_MPMATH_COST)
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


# Whole numbers


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


# Functions


def _log(evaluator: Evaluator, node: Node) -> Any:
    base, argument = (evaluator.value(arg) for arg in node.args)
    if is_zero(argument) or is_zero(base) or base == 1:
        raise UndefinedError("logarithm of zero or to the base one")
    logarithm = evaluator.context.log
    return logarithm(evaluator.inexact(argument)) / logarithm(evaluator.inexact(base))


def _abs(evaluator: Evaluator, node: Node) -> Any:
    return abs(evaluator.value(node.args[0]))


def _deg(evaluator: Evaluator, node: Node) -> Any:
    return evaluator.inexact(evaluator.value(node.args[0])) * evaluator.context.pi / 180


def _const(evaluator: Evaluator, node: Node) -> Any:
    match node.value:
        case "pi":
            return +evaluator.context.pi
        case "e":
            return +evaluator.context.e
        case "i":
            return evaluator.context.mpc(0, 1)
    raise OverLimitError(f"no value for {node.value}")


def _call(evaluator: Evaluator, node: Node) -> Any:
    if node.value in _INTEGER_FUNCTIONS:
        values = [evaluator.value(arg) for arg in node.args]
        return _integer_function(evaluator, node.value, values)
    if node.value in _ANALYTIC and len(node.args) == 1:
        return _analytic(evaluator, node.value, evaluator.value(node.args[0]))
    if node.value in _UNEVALUATED or any(arg.op == "matrix" for arg in node.args):
        raise OverLimitError(f"no value for {node.value}")
    return _opaque_call(evaluator, node)


def _opaque_call(evaluator: Evaluator, node: Node) -> Fraction:
    """A function that is only a name: equal arguments give equal values, others do not."""
    parts = []
    for arg in node.args:
        try:
            value = evaluator.value(arg)
        except OverLimitError:
            parts.append(key(arg))
            continue
        exact = isinstance(value, Fraction)
        parts.append(str(value) if exact else evaluator.context.nstr(value, 25))
    return opaque_value(f"{node.value}({','.join(parts)})")


_ANALYTIC: dict[str, Callable[[Any, Any], Any]] = {
    "sin": lambda c, x: c.sin(x), "cos": lambda c, x: c.cos(x), "tan": lambda c, x: c.tan(x),
    "cot": lambda c, x: 1 / c.tan(x), "sec": lambda c, x: 1 / c.cos(x),
    "csc": lambda c, x: 1 / c.sin(x), "arcsin": lambda c, x: c.asin(x),
    "arccos": lambda c, x: c.acos(x), "arctan": lambda c, x: c.atan(x),
    "arccot": lambda c, x: c.pi / 2 - c.atan(x), "arcsec": lambda c, x: c.acos(1 / x),
    "arccsc": lambda c, x: c.asin(1 / x), "sinh": lambda c, x: c.sinh(x),
    "cosh": lambda c, x: c.cosh(x), "tanh": lambda c, x: c.tanh(x),
    "coth": lambda c, x: 1 / c.tanh(x), "sech": lambda c, x: 1 / c.cosh(x),
    "csch": lambda c, x: 1 / c.sinh(x), "ln": lambda c, x: c.log(x),
    "arcsinh": lambda c, x: c.asinh(x), "arccosh": lambda c, x: c.acosh(x),
    "arctanh": lambda c, x: c.atanh(x), "Re": lambda c, x: c.re(x), "Im": lambda c, x: c.im(x),
    "norm": lambda c, x: abs(x),
}  # fmt: skip
_INTEGER_FUNCTIONS = frozenset(["floor", "ceil", "gcd", "lcm", "max", "min", "mod"])
_UNEVALUATED = frozenset(["det", "dim", "ker", "arg", "sgn", "deg"])
_UNBOUNDED = frozenset(["sinh", "cosh", "tanh", "coth", "sech", "csch"])
_POLES = {"cot": "sin", "csc": "sin", "tan": "cos", "sec": "cos", "coth": "sinh", "csch": "sinh"}


def _analytic(evaluator: Evaluator, name: str, argument: Any) -> Any:
    value = evaluator.inexact(argument)
    if abs(value) > _MAX_ANGLE or (name in _UNBOUNDED and abs(value) > 1_000):
        raise OverLimitError("the argument of a function is too large")
    pole = _POLES.get(name)
    if pole and _negligible(evaluator, _ANALYTIC[pole](evaluator.context, value)):
        raise UndefinedError(f"{name} at a pole")
    if name in ("ln", "arcsec", "arccsc") and _negligible(evaluator, value):
        raise UndefinedError(f"{name} of zero")
    if abs(value) == 1 and name in ("arctanh",):
        raise UndefinedError(f"{name} at a pole")
    evaluator.spend(_MPMATH_COST)
    return _ANALYTIC[name](evaluator.context, value)


def _integer_function(evaluator: Evaluator, name: str, values: list[Any]) -> Any:
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


_HANDLERS: dict[str, Callable[[Evaluator, Node], Any]] = {
    "num": lambda evaluator, node: node.value,
    "inexact": lambda evaluator, node: node.value,
    "sym": lambda evaluator, node: evaluator.symbol(node.value),
    "add": _add, "mul": _mul, "neg": _neg, "div": _div, "pow": _pow, "root": _root,
    "fact": _fact, "binom": _binom, "based": _based, "sum": _big, "prod": _big, "log": _log,
    "abs": _abs, "deg": _deg, "const": _const, "call": _call,
}  # fmt: skip
