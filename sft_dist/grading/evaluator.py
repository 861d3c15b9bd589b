"""The state of one evaluation: precision, values of the letters, work left.

Values are `Fraction` (exact) or numbers of an `mpmath` context, which is imported by the first
evaluation that needs it. mpmath keeps precision and constants in shared state, so a lock guards it.
"""

import math
import os
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from sft_dist.grading.limits import (
    MAX_BITS,
    MAX_DENOMINATOR_BITS,
    Budget,
    OverLimitError,
)
from sft_dist.grading.tree import Node

MPMATH_LOCK = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=MPMATH_LOCK.acquire, after_in_parent=MPMATH_LOCK.release,
                        after_in_child=MPMATH_LOCK.release)  # fmt: skip

_MAX_LOG10 = 5_000.0  # of the size of an inexact value
MPMATH_COST = 8


class UndefinedError(Exception):
    """There is no value here: a division by zero, the logarithm of zero."""


class Evaluator:
    """Computes values at one precision.

    Attributes:
        log10_range: The largest size or smallness (decimal exponent) of a power, or number of
            digits of an exact value, met on the way; sums with them need that many digits more.
        met_complex: Some value on the way was not real.
    """

    def __init__(
        self,
        budget: Budget,
        handlers: Mapping[str, "Handler"],
        *,
        digits: int = 40,
        values: Mapping[str, Fraction] | None = None,
    ) -> None:
        self._handlers = handlers
        self._budget = budget
        self._digits = digits
        self._values = values or {}
        self._context: Any = None
        self.log10_range = 0.0
        self.met_complex = False

    def value(self, node: Node) -> Any:
        """Return the value of `node`.

        Raises:
            UndefinedError: There is none at this point.
            OverLimitError: It is out of reach, or the tree is no expression.
        """
        self._budget.spend()
        handler = self._handlers.get(node.op)
        if handler is None:
            raise OverLimitError(f"no value for {node.op}")
        value = handler(self, node)
        if not isinstance(value, Fraction) and value.imag != 0:
            self.met_complex = True
        return value

    @property
    def context(self) -> Any:
        """The mpmath context with our precision; its own, so that the global one stays as it is."""
        if self._context is None:
            self._context = _mpmath_context()
            self._context.dps = self._digits
        self._budget.spend(MPMATH_COST)
        return self._context

    def inexact(self, value: Any) -> Any:
        """Turn an exact value into one of mpmath."""
        if not isinstance(value, Fraction):
            return value
        self.note_size(_detail(value))
        return self.context.mpf(value.numerator) / value.denominator

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


def _detail(value: Fraction) -> float:
    """Return how many decimal digits it takes to tell this value from its neighbours."""
    return max(value.numerator.bit_length(), value.denominator.bit_length()) * math.log10(2)


class _Mantissa:
    def __init__(self, exp: float, bc: float) -> None:
        self.exp, self.bc = exp, bc


def _mantissa(value: Any) -> _Mantissa:
    _, man, exp, bc = value._mpf_
    return _Mantissa(exp, bc) if man else _Mantissa(-math.inf, 0)


def negligible(evaluator: Evaluator, value: Any) -> bool:
    """Zero, or what rounding leaves of a zero."""
    if isinstance(value, Fraction) or is_zero(value):
        return is_zero(value)
    return bool(abs(value) < evaluator.context.mpf(10) ** (-0.7 * evaluator.context.dps))


Handler = Callable[[Evaluator, Node], Any]
