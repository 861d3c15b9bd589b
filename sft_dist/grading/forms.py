"""Rewrite trees of answers into the forms that are compared: no labels, signs or degree marks.

Nothing here decides equality.
"""

from collections.abc import Iterator
from itertools import product as sign_choices

from sft_dist.grading.limits import MAX_SIGNS, OverLimitError
from sft_dist.grading.tree import Node, contains, number, walk

EXPRESSIONS = frozenset(
    [
        "num",
        "sym",
        "const",
        "add",
        "mul",
        "neg",
        "div",
        "pow",
        "root",
        "fact",
        "binom",
        "log",
        "call",
        "abs",
        "deg",
        "sum",
        "prod",
        "based",
    ]
)


def is_expression(node: Node) -> bool:
    """True if the tree stands for one finite value once its letters have values."""
    return all(
        part.op in EXPRESSIONS and not (part.op == "const" and part.value not in ("pi", "e", "i"))
        for part in walk(node)
    )


# Plus-minus


def expand_signs(node: Node) -> list[Node]:
    r"""Write out every plus-minus; a tree with a minus-plus has two readings, upper and lower.

    Raises:
        OverLimitError: Too many signs.
    """
    signs = [part.value for part in walk(node) if part.op == "pm"]
    if not signs:
        return [node]
    if len(signs) > MAX_SIGNS:
        raise OverLimitError("too many plus-minus signs")
    if "-" in signs:
        return [_choose(node, iter([upper] * len(signs))) for upper in (True, False)]
    return [
        _choose(node, iter(choice)) for choice in sign_choices((True, False), repeat=len(signs))
    ]


def _choose(node: Node, choice: Iterator[bool]) -> Node:
    if not node.args:
        return node
    if node.op != "pm":
        return Node(node.op, tuple(_choose(arg, choice) for arg in node.args), node.value)
    positive = next(choice) == (node.value == "+")
    left, right = (_choose(arg, choice) for arg in node.args)
    right = right if positive else Node("neg", (right,))
    return right if left == number(0) else Node("add", (left, right))


def items_of(node: Node) -> list[Node] | None:
    """Return the members of an unordered collection, or None for anything else."""
    if node.op in ("list", "set", "compound"):
        return [item for arg in node.args for item in (_nested_items(arg))]
    if node.op == "unit" and contains(node, "pm"):
        return [Node("unit", (value,), node.value) for value in expand_signs(node.args[0])]
    if node.op != "rel" and contains(node, "pm"):
        return expand_signs(node)
    return None


def _nested_items(node: Node) -> list[Node]:
    if node.op in ("rel", "set"):
        return [node]
    return items_of(node) or [node]


# Degrees, units


def split_unit(node: Node) -> tuple[Node, str | None]:
    """Return the bare value and its unit; a degree sign over the whole value is one."""
    if node.op == "unit":
        value, inner = split_unit(node.args[0])
        return value, f"{inner} {node.value}" if inner and inner != node.value else node.value
    if contains(node, "deg"):
        bare = _strip_degrees(node)
        if bare is not None:
            return bare, "degree"
    return node, None


def _strip_degrees(node: Node) -> Node | None:
    """Take the degree sign off every term of a sum; None if a term has none."""
    match node.op:
        case "deg" if not contains(node.args[0], "deg"):
            return node.args[0]
        case "neg" | "add" | "pm":
            parts = [_strip_degrees(arg) for arg in node.args]
            if node.op == "pm" and parts[0] is None and node.args[0] == number(0):
                parts[0] = node.args[0]
            if any(part is None for part in parts):
                return None
            return Node(node.op, tuple(part for part in parts if part is not None), node.value)
        case "mul" | "div":
            index = next((i for i, arg in enumerate(node.args) if contains(arg, "deg")), 0)
            stripped = _strip_degrees(node.args[index])
            others = [arg for i, arg in enumerate(node.args) if i != index]
            if stripped is None or any(contains(arg, "deg", "call") for arg in others):
                return None
            if node.op == "div" and index == 1:
                return None
            args = list(node.args)
            args[index] = stripped
            return Node(node.op, tuple(args), node.value)
    return None


def joined_apart(left: Node, right: Node) -> bool:
    """`x > 1 and x < 2` is not `x > 1 or x < 2`, though the parts are the same."""
    if left.op != "list" or right.op != "list" or left.value == right.value:
        return False
    parts = left.args + right.args
    if {left.value, right.value} == {"and", "or"} and any(_is_name(part) for part in parts):
        return True
    if "or" in (left.value, right.value) and len(_equated(parts)) > 1:
        return True
    return any(part.op == "rel" and not set(part.value) <= {"=", "approx"} for part in parts)


def _is_name(node: Node) -> bool:
    return node.op in ("text", "sym")


def _equated(parts: tuple[Node, ...]) -> set[str]:
    """Return the letters that are given values; `x_1` and `x_2` are values of one."""
    labels = [part.args[0] for part in parts if part.op == "rel" and part.value == ("=",)]
    return {label.value.split("_")[0] for label in labels if label.op == "sym"}


def is_empty_set(node: Node) -> bool:
    """True for a set without members."""
    return node.op == "set" and not node.args


def members_of(node: Node) -> list[Node]:
    """Return the members of a collection, or the node itself."""
    return items_of(node) or [node]


def flat_args(node: Node) -> list[Node]:
    """Return the parts of a union or intersection of several."""
    flat = [flat_args(arg) if arg.op == node.op else [arg] for arg in node.args]
    return [part for parts in flat for part in parts]


def as_share(node: Node) -> Node:
    """Return 0.56 for 56%, anything else as it is."""
    if node.op == "unit" and node.value == "%":
        return Node("div", (node.args[0], number(100)))
    return node


def head(node: Node) -> object:
    """Return what besides the op and the parts must agree; angle brackets are round ones."""
    return node.value if node.op != "seq" or node.value != "<>" else "()"


def time_of_day(node: Node) -> Node:
    """`3 p.m.` is `3:00 p.m.`."""
    return Node("ratio", (node, number(0))) if node.op == "num" else node


def parts_of_compound(node: Node) -> list[Node] | None:
    """Return the quantities of `5 feet 3 inches`, or of a list of such; else None."""
    if node.op == "compound":
        first, rest = node.args
        return [first, *(parts_of_compound(rest) or [rest])]
    if node.op == "list" and all(arg.op == "unit" for arg in node.args):
        return list(node.args)
    return None
