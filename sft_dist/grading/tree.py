"""The tree an answer is read into: one node type, built only by the parser, bounded in size.

Operations (`op`, with `args` and `value`):
    num (value: Fraction)   sym (name)   const (pi, e, i, inf, R, ...)   dots
    add mul neg div pow root(radicand, index) fact binom log(base, x) call (name) abs deg
    sum prod (value: bound name; low, high, body)   pm (value: + or -; left, right)   decor (name)
    based (value: (digits, base))   ratio   text (words)   unit (value: unit; quantity)
    seq (value: brackets)   set   list (value: , and or)   rel (value: relations)
    union inter minus   matrix (value: (rows, columns, style))   cross (of two vectors)
    ordered (product of bold letters side by side, as of matrices)
    mod (modulus)   builder
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; leaves carry a `value` and no `args`."""

    op: str
    args: tuple["Node", ...] = ()
    value: Any = None


def number(value: Fraction | int) -> Node:
    """Make a leaf of an exact number."""
    return Node("num", (), Fraction(value))


MINUS_ONE = number(-1)


def is_number(node: Node) -> bool:
    """True for a literal number."""
    return node.op == "num"


def walk(node: Node) -> Iterator[Node]:
    """Yield the node and everything below it."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(current.args)


def depth(node: Node) -> int:
    """Return the number of operations in one another, without recursion."""
    deepest, stack = 0, [(node, 1)]
    while stack:
        current, level = stack.pop()
        deepest = max(deepest, level)
        stack.extend((arg, level + 1) for arg in current.args)
    return deepest


def contains(node: Node, *ops: str) -> bool:
    """True if an operation of that name is in the tree."""
    return any(part.op in ops for part in walk(node))


def symbols(node: Node) -> frozenset[str]:
    """Return the names of the free letters; bound ones of sums are left out."""
    if node.op == "sym":
        return frozenset([node.value])
    names: frozenset[str] = frozenset().union(*(symbols(arg) for arg in node.args))
    return names - {node.value} if node.op in ("sum", "prod") else names


def key(node: Node) -> str:
    """Return a text that is the same for trees equal up to the order of sums and products."""
    match node.op:
        case "add":
            return "(" + "+".join(sorted(key(part) for part in _flat(node, "add"))) + ")"
        case "mul" | "div" | "neg":
            return "(" + "*".join(sorted(_factor_keys(node, 1))) + ")"
        case "num" | "inexact" | "sym" | "const" | "text" | "dots":
            return f"{node.op}:{node.value}"
        case "set":
            return "set{" + ",".join(sorted(key(arg) for arg in node.args)) + "}"
    return f"{node.op}[{node.value}]({','.join(key(arg) for arg in node.args)})"


def _flat(node: Node, op: str) -> Iterator[Node]:
    for arg in node.args:
        if arg.op == op:
            yield from _flat(arg, op)
        else:
            yield arg


def _factor_keys(node: Node, sign: int) -> Iterator[str]:
    match node.op:
        case "mul":
            for arg in node.args:
                yield from _factor_keys(arg, sign)
        case "div":
            yield from _factor_keys(node.args[0], sign)
            yield from _factor_keys(node.args[1], -sign)
        case "neg":
            yield "num:-1"
            yield from _factor_keys(node.args[0], sign)
        case _:
            yield key(node) if sign > 0 else "1/" + key(node)


def replace(node: Node, name: str, value: Node) -> Node:
    """Put `value` where the letter `name` is free."""
    if node.op == "sym":
        return value if node.value == name else node
    if not node.args or (node.op in ("sum", "prod") and node.value == name):
        return node
    return Node(node.op, tuple(replace(arg, name, value) for arg in node.args), node.value)
