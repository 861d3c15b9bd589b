"""Where two functions of letters are compared: fixed points that look random.

A tree with a kink or a step in it, as `|x - 12|`, is evaluated far from zero too, beyond the
largest number that is written in it; steps also at whole numbers, where they happen. Letters of
operations on whole numbers get whole values.
"""

import zlib
from fractions import Fraction

from sft_dist.grading.tree import Node, contains, is_number, walk

NUM_POINTS = 8
Values = dict[str, Fraction]
_WIDE_POINTS = {4: 100, 5: -100, 6: 10_000, 7: -10_000}
_WHOLE_LETTERS = 40  # of the first points; sums up to there are cheap
_FARTHEST = 10**30
_KINKED = frozenset(["floor", "ceil", "max", "min", "sgn"])


class Points:
    """The points for one pair of trees."""

    def __init__(self, left: Node, right: Node, letters: list[str]) -> None:
        self._letters = letters
        self._whole = _counts_whole(left) or _counts_whole(right)
        summed = contains(left, "sum", "prod") or contains(right, "sum", "prod")
        kinked = _has_kink(left) or _has_kink(right)
        self._wide = not summed if self._whole else kinked
        self._reach = max(_reach(left), _reach(right))

    def values(self, point: int) -> Values:
        """Return the values of the letters at one point."""
        return {letter: self._value(point, letter) for letter in self._letters}

    def may_fail(self, point: int) -> bool:
        """True for a point so far out that a value beyond the limits says nothing."""
        return self._wide and point in _WIDE_POINTS

    def _value(self, point: int, letter: str) -> Fraction:
        fraction = _fraction(point, letter)
        if self._whole:
            return Fraction(self._whole_value(point, fraction))
        if self.may_fail(point):
            return self._far_value(point, fraction)
        return _near_value(point, fraction)

    def _whole_value(self, point: int, fraction: Fraction) -> int:
        """The last point is a multiple of the largest number, as divisors ask for."""
        if not self.may_fail(point):
            return 2 + int(_WHOLE_LETTERS * fraction)
        if point == NUM_POINTS - 1 and self._reach > 1:
            return self._reach * (1 + int(3 * fraction))
        return 2 + int(max(_WHOLE_LETTERS, 3 * self._reach) * fraction)

    def _far_value(self, point: int, fraction: Fraction) -> Fraction:
        limit = _WIDE_POINTS[point]
        if abs(limit) <= 100:
            return limit * fraction
        span = max(abs(limit), 3 * self._reach)
        return Fraction(int(span * fraction)) * (1 if limit > 0 else -1)


def point_values(letters: list[str], point: int) -> Values:
    """Return the values of the letters at a point not far from zero."""
    return {letter: _near_value(point, _fraction(point, letter)) for letter in letters}


def _fraction(point: int, letter: str) -> Fraction:
    """Return a number in (0, 1)."""
    seed = f"{point}/{letter}/{zlib.crc32(f'{letter}{point}'.encode())}"
    return Fraction(1 + zlib.crc32(seed.encode()) % 99_989, 99_991)


def _near_value(point: int, fraction: Fraction) -> Fraction:
    """In (1, 10), in (0, 1), or in (-10, 0)."""
    match point % 4:
        case 0 | 1:
            return 1 + 9 * fraction
        case 2:
            return fraction
        case _:
            return -10 * fraction


def _reach(node: Node) -> int:
    """Return the largest whole number written in a tree; powers like 10^6 count."""
    reach = 0
    for part in walk(node):
        if part.op == "num":
            reach = max(reach, int(abs(part.value)))
        elif part.op == "pow" and all(map(is_number, part.args)):
            reach = max(reach, _written_power(*part.args))
    return min(reach, _FARTHEST)


def _written_power(base: Node, exponent: Node) -> int:
    if not (1 < base.value <= _FARTHEST and 0 < exponent.value <= 100):
        return 0
    return int(base.value) ** int(exponent.value)


def _has_kink(node: Node) -> bool:
    """True if an absolute value, a step or an even root may hide where its argument turns."""
    return any(
        part.op in ("abs", "root")
        or (part.op == "pow" and part.args[1].op != "num")
        or (part.op == "call" and part.value in _KINKED)
        for part in walk(node)
    )


def _counts_whole(node: Node) -> bool:
    """True if an operation on whole numbers is in the tree."""
    return contains(node, "fact", "sum", "prod", "binom") or any(
        part.op == "call" and part.value in ("gcd", "lcm", "mod") for part in walk(node)
    )
