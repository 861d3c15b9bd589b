"""Arithmetic of intervals: intersection, complement, union in order, equality."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sft_dist.grading.evaluate import make_evaluator
from sft_dist.grading.evaluator import UndefinedError
from sft_dist.grading.limits import Budget, OverLimitError
from sft_dist.grading.tree import Node, symbols
from sft_dist.grading.values import same_value

INFINITY = Node("const", (), "infty")
MINUS_INFINITY = Node("neg", (INFINITY,))
_MAX_PIECES = 40


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of an interval. `sign` is -1 or 1 for an infinite one, which is never closed."""

    tree: Node
    closed: bool
    sign: int
    size: Any

    def before(self, other: "Bound") -> bool:
        """True if it lies strictly lower."""
        if self.sign or other.sign:
            return self.sign < other.sign
        return bool(self.size < other.size)


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of real numbers; one number if both bounds are it."""

    low: Bound
    high: Bound


class NotASetError(Exception):
    """The tree does not describe a set of real numbers."""


def same_intervals(left: list[Interval], right: list[Interval], *, budget: Budget) -> bool:
    """True if both lists of intervals, in order, are the same."""
    if len(left) != len(right):
        return False
    return all(
        _same_bound(first.low, second.low, budget) and _same_bound(first.high, second.high, budget)
        for first, second in zip(left, right, strict=True)
    )


def _same_bound(left: Bound, right: Bound, budget: Budget) -> bool:
    if left.sign or right.sign:
        return left.sign == right.sign
    return left.closed == right.closed and same_value(left.tree, right.tree, budget=budget)[0]


def make_interval(
    low: Node, high: Node, low_closed: bool, high_closed: bool, budget: Budget
) -> Interval:
    """Return the interval between two bounds."""
    return Interval(_bound(low, low_closed, budget), _bound(high, high_closed, budget))


def _bound(node: Node, closed: bool, budget: Budget) -> Bound:
    if node in (INFINITY, MINUS_INFINITY):
        if closed:
            raise NotASetError
        return Bound(node, False, 1 if node == INFINITY else -1, 0)
    if symbols(node):
        raise NotASetError
    try:
        evaluator = make_evaluator(budget, digits=40)
        value = evaluator.value(node)
    except (UndefinedError, OverLimitError) as error:
        raise NotASetError from error
    if not isinstance(value, Fraction):
        if abs(value.imag) > 0:
            raise NotASetError
        value = value.real
    return Bound(node, closed, 0, evaluator.inexact(value))


def make_point(node: Node, budget: Budget) -> Interval:
    """Return the set of one number."""
    bound = _bound(node, True, budget)
    if bound.sign:
        raise NotASetError
    return Interval(bound, bound)


def _is_empty(low: Bound, high: Bound) -> bool:
    return high.before(low) or (not low.before(high) and not (low.closed and high.closed))


def intersection(left: list[Interval], right: list[Interval]) -> list[Interval]:
    """Return what lies in both."""
    if len(left) * len(right) > _MAX_PIECES**2:
        raise OverLimitError("too many intervals")
    found = []
    for first in left:
        for second in right:
            low = _inner(first.low, second.low, from_below=True)
            high = _inner(first.high, second.high, from_below=False)
            if not _is_empty(low, high):
                found.append(Interval(low, high))
    return found


def _inner(first: Bound, second: Bound, *, from_below: bool) -> Bound:
    """Return the bound that leaves less; of two at one place the open one."""
    if first.before(second):
        return second if from_below else first
    if second.before(first):
        return first if from_below else second
    return second if first.closed else first


def complement(pieces: list[Interval], budget: Budget) -> list[Interval]:
    """Return what lies in none of the pieces."""
    result = [make_interval(MINUS_INFINITY, INFINITY, False, False, budget)]
    for piece in pieces:
        outside = []
        if not piece.low.sign:
            outside.append(Interval(_bound(MINUS_INFINITY, False, budget), _opposite(piece.low)))
        if not piece.high.sign:
            outside.append(Interval(_opposite(piece.high), _bound(INFINITY, False, budget)))
        result = intersection(result, outside)
    return result


def _opposite(bound: Bound) -> Bound:
    return Bound(bound.tree, not bound.closed, bound.sign, bound.size)


def merged(pieces: list[Interval], budget: Budget) -> list[Interval]:
    """Put intervals in order and join those that touch or overlap."""
    if len(pieces) > _MAX_PIECES:
        raise OverLimitError("too many intervals")
    budget.spend(len(pieces))
    pieces = [piece for piece in pieces if not _is_empty(piece.low, piece.high)]
    merged: list[Interval] = []
    for piece in sorted(pieces, key=_sort_key):
        if merged and _touch(merged[-1].high, piece.low):
            last = merged.pop()
            high = piece.high if last.high.before(piece.high) else last.high
            if not last.high.before(piece.high) and not piece.high.before(last.high):
                high = last.high if last.high.closed else piece.high
            piece = Interval(last.low, high)
        merged.append(piece)
    return merged


def _touch(high: Bound, low: Bound) -> bool:
    if high.before(low):
        return False
    return low.before(high) or high.closed or low.closed


def _sort_key(piece: Interval) -> tuple[int, Any, bool]:
    return piece.low.sign, piece.low.size, not piece.low.closed
