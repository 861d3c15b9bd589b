r"""Sets of real numbers: intervals, their unions, and the inequalities that describe them.

`x > 3`, `(3, \infty)` and `\{x : x > 3\}` are the same set. Bounds keep their trees and are put in
order by value.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from sft_dist.grading.evaluate import MPMATH_LOCK, Evaluator, UndefinedError
from sft_dist.grading.limits import Budget, OverLimitError
from sft_dist.grading.tree import Node, symbols
from sft_dist.grading.values import same_value

_INFINITY = Node("const", (), "infty")
_MINUS_INFINITY = Node("neg", (_INFINITY,))
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
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


def as_intervals(node: Node, budget: Budget) -> tuple[str | None, list[Interval]]:
    """Return the letter that is described (None for a bare set) and the intervals in order.

    Raises:
        NotASetError: The tree is no interval, union or inequality in one letter.
        OverLimitError: A bound cannot be evaluated.
    """
    with MPMATH_LOCK:
        letter, pieces = _read(node, budget)
    return letter, _merged(pieces, budget)


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


def flipped(node: Node) -> Node | None:
    """Return a chain of inequalities read from right to left; None for other relations."""
    if not set(node.value) <= set(FLIPPED):
        return None
    turned = tuple(FLIPPED[relation] for relation in reversed(node.value))
    return Node("rel", node.args[::-1], turned)


# Reading


def _read(node: Node, budget: Budget) -> tuple[str | None, list[Interval]]:
    match node.op:
        case "seq" if len(node.args) == 2 and node.value != "<>":
            low, high = node.args
            closed = (node.value[0] == "[", node.value[1] == "]")
            return None, [_interval(low, high, *closed, budget)]
        case "union":
            return _joined([_read(arg, budget) for arg in node.args])
        case "const" if node.value == "mathbb R":
            return None, [_interval(_MINUS_INFINITY, _INFINITY, False, False, budget)]
        case "set":
            return None, [_point(arg, budget) for arg in node.args]
        case "add" if len(node.args) == 2 and node.args[1].op == "neg":
            difference = Node("minus", (node.args[0], node.args[1].args[0]))
            return None, _combined(difference, budget)
        case "inter" | "minus":
            return None, _combined(node, budget)
        case "rel":
            return _read_relation(node, budget)
        case "list":
            return _read_joint(node, budget)
        case "builder":
            letter, pieces = _read(node.args[1], budget)
            if letter not in symbols(node.args[0]):
                raise NotASetError
            return None, pieces
    raise NotASetError


def _joined(parts: list[tuple[str | None, list[Interval]]]) -> tuple[str | None, list[Interval]]:
    letters = {letter for letter, _ in parts}
    if len(letters) != 1:
        raise NotASetError
    return letters.pop(), [piece for _, pieces in parts for piece in pieces]


def _read_joint(node: Node, budget: Budget) -> tuple[str | None, list[Interval]]:
    """`x < 1 or x > 2` joins; `x > 1 and x < 2` intersects; a comma is unclear unless apart."""
    parts = [_read(arg, budget) for arg in node.args]
    letter, pieces = _joined(parts)
    if node.value == "or" or (letter is None and all(arg.op == "seq" for arg in node.args)):
        return letter, pieces
    if letter is None:
        raise NotASetError
    common = parts[0][1]
    for _, others in parts[1:]:
        common = _intersection(common, others)
    excludes = any(arg.op == "rel" and "!=" in arg.value for arg in node.args)
    if node.value == "," and not excludes:
        if common:
            raise NotASetError
        return letter, pieces
    return letter, common


def _combined(node: Node, budget: Budget) -> list[Interval]:
    _, left = _read(node.args[0], budget)
    _, right = _read(node.args[1], budget)
    if node.op == "minus":
        right = _complement(_merged(right, budget), budget)
    return _intersection(left, right)


def _read_relation(node: Node, budget: Budget) -> tuple[str, list[Interval]]:
    if node.value == ("in",) and node.args[0].op == "sym":
        letter, pieces = _read(node.args[1], budget)
        if letter is not None:
            raise NotASetError
        return node.args[0].value, pieces
    if not set(node.value) <= set(FLIPPED):
        raise NotASetError
    letters = symbols(node)
    if len(letters) != 1:
        raise NotASetError
    pieces = [_interval(_MINUS_INFINITY, _INFINITY, False, False, budget)]
    for relation, (left, right) in zip(node.value, pairwise(node.args), strict=True):
        pieces = _intersection(pieces, _half_lines(left, relation, right, budget))
    return next(iter(letters)), pieces


def _half_lines(left: Node, relation: str, right: Node, budget: Budget) -> list[Interval]:
    if right.op == "sym":
        left, relation, right = right, FLIPPED[relation], left
    if left.op == "abs" and left.args[0].op == "sym" and relation in ("<", "<="):
        closed = relation == "<="
        return [_interval(Node("neg", (right,)), right, closed, closed, budget)]
    if left.op != "sym" or symbols(right):
        raise NotASetError
    closed = relation in ("<=", ">=")
    if relation in ("<", "<="):
        return [_interval(_MINUS_INFINITY, right, False, closed, budget)]
    if relation in (">", ">="):
        return [_interval(right, _INFINITY, closed, False, budget)]
    point = _point(right, budget)
    return [point] if relation == "=" else _complement([point], budget)


def _interval(
    low: Node, high: Node, low_closed: bool, high_closed: bool, budget: Budget
) -> Interval:
    return Interval(_bound(low, low_closed, budget), _bound(high, high_closed, budget))


def _point(node: Node, budget: Budget) -> Interval:
    bound = _bound(node, True, budget)
    if bound.sign:
        raise NotASetError
    return Interval(bound, bound)


def _bound(node: Node, closed: bool, budget: Budget) -> Bound:
    if node in (_INFINITY, _MINUS_INFINITY):
        if closed:
            raise NotASetError
        return Bound(node, False, 1 if node == _INFINITY else -1, 0)
    if symbols(node):
        raise NotASetError
    try:
        evaluator = Evaluator(budget, digits=40)
        value = evaluator.value(node)
    except (UndefinedError, OverLimitError) as error:
        raise NotASetError from error
    if not isinstance(value, Fraction):
        if abs(value.imag) > 0:
            raise NotASetError
        value = value.real
    return Bound(node, closed, 0, evaluator.inexact(value))


# Calculation


def _is_empty(low: Bound, high: Bound) -> bool:
    return high.before(low) or (not low.before(high) and not (low.closed and high.closed))


def _intersection(left: list[Interval], right: list[Interval]) -> list[Interval]:
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


def _complement(pieces: list[Interval], budget: Budget) -> list[Interval]:
    result = [_interval(_MINUS_INFINITY, _INFINITY, False, False, budget)]
    for piece in pieces:
        outside = []
        if not piece.low.sign:
            outside.append(Interval(_bound(_MINUS_INFINITY, False, budget), _opposite(piece.low)))
        if not piece.high.sign:
            outside.append(Interval(_opposite(piece.high), _bound(_INFINITY, False, budget)))
        result = _intersection(result, outside)
    return result


def _opposite(bound: Bound) -> Bound:
    return Bound(bound.tree, not bound.closed, bound.sign, bound.size)


def _merged(pieces: list[Interval], budget: Budget) -> list[Interval]:
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
