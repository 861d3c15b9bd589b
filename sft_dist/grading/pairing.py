"""Pair the members of two unordered collections."""

from collections import Counter
from collections.abc import Callable

from sft_dist.grading.tree import Node, key


def same_unordered(
    first: list[Node], second: list[Node], same: Callable[[Node, Node], bool]
) -> bool:
    """True if every member of one has its own equal in the other."""
    if len(first) != len(second):
        return False
    keys = Counter(key(item) for item in second)
    rest = []
    for item in first:  # the same spelling is the common case, and cheap
        if keys[key(item)]:
            keys[key(item)] -= 1
        else:
            rest.append(item)
    left_over = [item for item in second if _take(keys, key(item))]
    for item in rest:
        found = (
            i for i, other in enumerate(left_over) if _alike(item, other) and same(item, other)
        )
        index = next(found, None)
        if index is None:
            return False
        del left_over[index]
    return True


def _alike(left: Node, right: Node) -> bool:
    """A set of one number stands for the number, but not where it is a member itself."""
    return (left.op == "set") == (right.op == "set")


def _take(counts: Counter[str], name: str) -> bool:
    counts[name] -= 1
    return counts[name] >= 0
