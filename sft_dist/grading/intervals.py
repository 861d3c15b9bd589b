r"""Sets of real numbers: intervals, their unions, and the inequalities that describe them.

`x > 3`, `(3, \infty)` and `\{x : x > 3\}` are the same set. Bounds keep their trees and are put in
order by value.
"""

from itertools import pairwise

from sft_dist.grading.evaluator import MPMATH_LOCK
from sft_dist.grading.interval_sets import (
    INFINITY,
    MINUS_INFINITY,
    Interval,
    NotASetError,
    complement,
    intersection,
    make_interval,
    make_point,
    merged,
)
from sft_dist.grading.limits import Budget
from sft_dist.grading.tree import Node, key, symbols

_REAL_NUMBERS = Node("const", (), "mathbb R")
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def as_intervals(node: Node, budget: Budget) -> tuple[str | None, list[Interval]]:
    """Return the letter that is described (None for a bare set) and the intervals in order.

    Raises:
        NotASetError: The tree is no interval, union or inequality in one letter.
        OverLimitError: A bound cannot be evaluated.
    """
    with MPMATH_LOCK:
        letter, pieces = _read(node, budget)
    return letter, merged(pieces, budget)


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
            return None, [_read_interval(node, budget)]
        case "union":
            return _joined([_read(arg, budget) for arg in node.args])
        case "const" if node == _REAL_NUMBERS:
            return None, [make_interval(MINUS_INFINITY, INFINITY, False, False, budget)]
        case "set":
            return None, [make_point(arg, budget) for arg in node.args]
        case "inter" | "minus" | "add":
            return None, _combined(node, budget)
        case "rel":
            return _read_relation(node, budget)
        case "list":
            return _read_joint(node, budget)
        case "builder":
            letter, pieces = _read(node.args[1], budget)
            if letter != _drawn_letter(node.args[0]):
                raise NotASetError
            return None, pieces
    raise NotASetError


def _drawn_letter(head: Node) -> str | None:
    r"""Return the letter of `x` and `x \in \mathbb{R}`; None where less is drawn from, or more."""
    if head.op == "rel" and head.value == ("in",) and head.args[1] == _REAL_NUMBERS:
        head = head.args[0]
    return head.value if head.op == "sym" else None


def _read_interval(node: Node, budget: Budget) -> Interval:
    low, high = node.args
    interval = make_interval(low, high, node.value[0] == "[", node.value[1] == "]", budget)
    if not interval.low.before(interval.high):
        raise NotASetError  # a point, not an empty interval
    return interval


def _joined(parts: list[tuple[str | None, list[Interval]]]) -> tuple[str | None, list[Interval]]:
    letters = {letter for letter, _ in parts}
    if len(letters) != 1:
        raise NotASetError
    return letters.pop(), [piece for _, pieces in parts for piece in pieces]


def _read_joint(node: Node, budget: Budget) -> tuple[str | None, list[Interval]]:
    """`x < 1 or x > 2` joins; `x > 1 and x < 2` intersects; a comma is unclear unless apart."""
    parts = [_read(arg, budget) for arg in node.args]
    letter, pieces = _joined(parts)
    if letter is None:
        if node.value == "or" or any(piece.low.sign or piece.high.sign for piece in pieces):
            return None, pieces
        raise NotASetError  # a list of points, for all one can tell
    if node.value == "or":
        return letter, pieces
    common = parts[0][1]
    for _, others in parts[1:]:
        common = intersection(common, others)
    excludes = any(arg.op == "rel" and "!=" in arg.value for arg in node.args)
    if node.value == "," and not excludes:
        if common:
            raise NotASetError
        return letter, pieces
    return letter, common


def _combined(node: Node, budget: Budget) -> list[Interval]:
    if node.op == "add":  # a difference of sets written with a minus sign
        if len(node.args) != 2 or node.args[1].op != "neg":
            raise NotASetError
        node = Node("minus", (node.args[0], node.args[1].args[0]))
    _, left = _read(node.args[0], budget)
    _, right = _read(node.args[1], budget)
    if node.op == "minus":
        right = complement(merged(right, budget), budget)
    return intersection(left, right)


def _read_relation(node: Node, budget: Budget) -> tuple[str, list[Interval]]:
    if node.value == ("in",) and node.args[0].op == "sym":
        letter, pieces = _read(node.args[1], budget)
        if letter is not None:
            raise NotASetError
        return node.args[0].value, pieces
    if not set(node.value) <= set(FLIPPED):
        raise NotASetError
    node = _named(node)
    letters = symbols(node)
    if len(letters) != 1:
        raise NotASetError
    pieces = [make_interval(MINUS_INFINITY, INFINITY, False, False, budget)]
    for relation, (left, right) in zip(node.value, pairwise(node.args), strict=True):
        pieces = intersection(pieces, _half_lines(left, relation, right, budget))
    return next(iter(letters)), pieces


def _named(node: Node) -> Node:
    """Put a letter for the function in `-1 <= g(x) <= 1`, whose values are described then."""
    calls = {key(side) for side in node.args if side.op == "call" and len(side.value) == 1}
    if len(calls) != 1:
        return node
    letter = Node("sym", (), calls.pop())
    sides = tuple(letter if key(side) == letter.value else side for side in node.args)
    return Node("rel", sides, node.value)


def _half_lines(left: Node, relation: str, right: Node, budget: Budget) -> list[Interval]:
    if right.op == "sym":
        left, relation, right = right, FLIPPED[relation], left
    if left.op == "abs" and left.args[0].op == "sym" and relation in ("<", "<="):
        closed = relation == "<="
        return [make_interval(Node("neg", (right,)), right, closed, closed, budget)]
    if left.op != "sym" or symbols(right):
        raise NotASetError
    closed = relation in ("<=", ">=")
    if relation in ("<", "<="):
        return [make_interval(MINUS_INFINITY, right, False, closed, budget)]
    if relation in (">", ">="):
        return [make_interval(right, INFINITY, closed, False, budget)]
    point = make_point(right, budget)
    return [point] if relation == "=" else complement([point], budget)
