r"""Labels of answers: `x =`, `f(x) =`, `x \in`, `(x, y) =`; ignored unless they contradict."""

from collections.abc import Callable
from itertools import pairwise

from sft_dist.grading.forms import as_share, expand_signs, members_of
from sft_dist.grading.tree import Node, is_number, key, symbols, walk


def strip_label(node: Node) -> tuple[Node | None, list[Node]] | None:
    r"""Split a labelled answer into its label and the sides that say its value.

    Several sides are claims of one value: `A = 2 + 3 = 5`. A true equation of constants has no
    label. After an approximation sign only what stands before it counts, unless that is the label.
    Returns None for what is not a labelled answer.
    """
    if node.op != "rel" or not set(node.value) <= {"=", "approx", "in", "equiv"}:
        return None
    sides = list(node.args)
    if node.value in (("in",), ("equiv",)):
        return (sides[0], sides[1:]) if _is_label(sides[0]) else None
    if "in" in node.value or "equiv" in node.value:
        return None
    label = sides[0] if _is_label(sides[0]) else None
    if "approx" in node.value:
        cut = node.value.index("approx") + 1
        if label is None or cut > 1:
            sides = sides[:cut]
        elif len(sides) > 2:
            return None
    values = sides[1:] if label is not None else sides
    if label is None and any(symbols(side) for side in sides):
        return None
    settled = [side for side in values if not symbols(side)]
    return label, (settled if settled and not symbols(values[-1]) else values[-1:])


def _is_label(node: Node) -> bool:
    if node.op in ("sym", "text") or (node.op == "call" and node.args and symbols(node)):
        return True
    if node.op == "call" and any(arg.op == "text" for arg in node.args):
        return True
    if node.op == "call":
        return bool(node.args) and all(is_number(arg) for arg in node.args) and len(node.value) <= 3
    if node.op == "seq":
        return all(arg.op == "sym" for arg in node.args)
    plain = all(
        part.op in ("sym", "add", "mul", "ordered", "neg", "div", "abs") for part in walk(node)
    )
    return plain and bool(symbols(node))


def _same_label_base(left: Node, right: Node) -> bool:
    """`x` and `x_1` name roots of one equation."""
    if left.op != "sym" or right.op != "sym":
        return False
    return bool(left.value.split("_")[0] == right.value.split("_")[0])


def same_claims(first: list[Node], second: list[Node], same: Callable[[Node, Node], bool]) -> bool:
    """Each list claims one value; a false claim (`2 + 3 = 6`) equals nothing."""
    for claims in (first, second):
        if any(not _same_claim(one, other, same) for one, other in pairwise(claims)):
            return False
    pairs = [(one, other) for one in first for other in second]
    shares = [pair for pair in pairs if all(as_share(side) != side for side in pair)]
    return any(same(one, other) for one, other in shares or pairs)


def _same_claim(left: Node, right: Node, same: Callable[[Node, Node], bool]) -> bool:
    r"""In `0.56 = 56\%` the percent sign is a factor."""
    return same(left, right) or same(as_share(left), as_share(right))


def compatible_labels(left: Node | None, right: Node | None) -> bool:
    """Two labels may name one thing: the same letter, or `y` and a function of x."""
    if left is None or right is None or key(left) == key(right) or "text" in (left.op, right.op):
        return True
    ops = {left.op, right.op}
    if ops == {"sym", "call"}:
        letter, call = (left, right) if left.op == "sym" else (right, left)
        return letter.value == call.value or (letter.value == "y" and call.value.isalpha())
    return _same_label_base(left, right)


def without_labels(items: list[Node]) -> tuple[list[Node], list[str]]:
    """Take labels off the members; return their names, one for each member that is labelled."""
    values: list[Node] = []
    names: list[str] = []
    for item in items:
        stripped = strip_label(item)
        if stripped is None or stripped[0] is None or len(stripped[1]) != 1:
            values.append(item)
            continue
        name = key(stripped[0])
        names.append(name.split("_")[0])
        values.extend(expand_signs(stripped[1][0]))
    return values, names


def named_members(collection: Node) -> list[Node]:
    """Return the members, each with its label.

    Labels in words (`Ann = 3, Bob = 5`) tell them apart as letters do; what follows a label without
    one of its own has the same (`x = 2, 3`).
    """
    members: list[Node] = []
    label: Node | None = None
    for item in members_of(collection):
        if item.op == "rel" and item.args[0].op == "text":
            name = Node("sym", (), f"text {item.args[0].value}")
            item = Node("rel", (name, *item.args[1:]), item.value)
        if item.op == "rel":
            label = item.args[0] if item.value == ("=",) and item.args[0].op == "sym" else None
        elif label is not None:
            item = Node("rel", (label, item), ("=",))
        members.append(item)
    return members
