"""Values of logarithms, trigonometric and other functions, and of constants."""

import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from sft_dist.grading import whole_numbers
from sft_dist.grading.evaluator import (
    MPMATH_COST,
    Evaluator,
    Handler,
    UndefinedError,
    is_zero,
    negligible,
)
from sft_dist.grading.limits import OverLimitError
from sft_dist.grading.tree import Node, key, symbols

_MAX_ANGLE = 10**12  # reducing a larger one costs precision


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
    if node.value in ("Re", "Im") and symbols(node):  # letters have real values here
        return _opaque_call(evaluator, node)
    if node.value in whole_numbers.FUNCTIONS:
        values = [evaluator.value(arg) for arg in node.args]
        return whole_numbers.integer_function(evaluator, node.value, values)
    if node.value in _ANALYTIC and len(node.args) == 1:
        return _analytic(evaluator, node.value, evaluator.value(node.args[0]))
    if node.value in _UNEVALUATED or any(arg.op == "matrix" for arg in node.args):
        raise OverLimitError(f"no value for {node.value}")
    return _opaque_call(evaluator, node)


def _opaque_value(text: str) -> Fraction:
    """Return a number that stands for a name: fixed, and unlike that of any other name."""
    low, high = zlib.crc32(text.encode()), zlib.adler32(text[::-1].encode())
    return Fraction(1 + (low * 65_537 + high) % 999_983, 100_003)


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
    return _opaque_value(f"{node.value}({','.join(parts)})")


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
    "norm": lambda c, x: abs(x), "cis": lambda c, x: c.expj(x),
}  # fmt: skip
_UNEVALUATED = frozenset(["det", "dim", "ker", "arg", "sgn", "deg"])
_UNBOUNDED = frozenset(["sinh", "cosh", "tanh", "coth", "sech", "csch"])
_POLES = {"cot": "sin", "csc": "sin", "tan": "cos", "sec": "cos", "coth": "sinh", "csch": "sinh"}


def _analytic(evaluator: Evaluator, name: str, argument: Any) -> Any:
    value = evaluator.inexact(argument)
    if abs(value) > _MAX_ANGLE or (name in _UNBOUNDED and abs(value) > 1_000):
        raise OverLimitError("the argument of a function is too large")
    if name in _UNBOUNDED:  # `\tanh 200` differs from 1 in the 174th digit
        evaluator.note_size(float(abs(value)))
    pole = _POLES.get(name)
    if pole and negligible(evaluator, _ANALYTIC[pole](evaluator.context, value)):
        raise UndefinedError(f"{name} at a pole")
    if name in ("ln", "arcsec", "arccsc") and negligible(evaluator, value):
        raise UndefinedError(f"{name} of zero")
    if abs(value) == 1 and name in ("arctanh",):
        raise UndefinedError(f"{name} at a pole")
    evaluator.spend(MPMATH_COST)
    return _ANALYTIC[name](evaluator.context, value)


HANDLERS: dict[str, Handler] = {
    "log": _log, "abs": _abs, "deg": _deg, "const": _const, "call": _call,
}  # fmt: skip
