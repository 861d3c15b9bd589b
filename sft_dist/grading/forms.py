"""Rewrite trees of answers into the forms that are compared: no labels, signs or degree marks.

Nothing here decides equality.
"""

from collections.abc import Callable, Iterator
from itertools import product as sign_choices

from sft_dist.grading.limits import MAX_DETERMINANT, MAX_SIGNS, OverLimitError
from sft_dist.grading.tree import Node, contains, is_number, number, symbols, walk

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


# Labels: `x =`, `f(x) =`, `x \in`, `(x, y) =`


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
    if node.op == "call":
        return bool(node.args) and all(is_number(arg) for arg in node.args) and len(node.value) <= 3
    if node.op == "seq":
        return all(arg.op == "sym" for arg in node.args)
    plain = all(part.op in ("sym", "add", "mul", "neg", "div", "abs") for part in walk(node))
    return plain and bool(symbols(node))


def same_label_base(left: Node, right: Node) -> bool:
    """`x` and `x_1` name roots of one equation."""
    if left.op != "sym" or right.op != "sym":
        return False
    return bool(left.value.split("_")[0] == right.value.split("_")[0])


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


# Matrices


def simplify_matrix(node: Node) -> Node:
    """Carry a scalar factor, a sign or a transposition into a matrix."""
    match node.op, node.args:
        case "neg", (Node(op="matrix") as matrix,):
            return _map(matrix, lambda entry: Node("neg", (entry,)))
        case "div", (Node(op="matrix") as matrix, scalar):
            return _map(matrix, lambda entry: Node("div", (entry, scalar)))
        case "mul", (*scalars, Node(op="matrix") as matrix) if all(map(is_expression, scalars)):
            return _map(matrix, lambda entry: Node("mul", (*scalars, entry)))
        case "call", (Node(op="matrix") as matrix,) if node.value == "det":
            rows, columns, _ = matrix.value
            return node if rows != columns or rows > MAX_DETERMINANT else _determinant(matrix)
        case "pow", (Node(op="matrix") as matrix, Node(op="sym", value="T")):
            return _transposed(matrix)
    return node


def _determinant(matrix: Node) -> Node:
    """Expand along the first row."""
    size = matrix.value[0]
    if size == 1:
        return matrix.args[0]
    terms = []
    for column in range(size):
        minor = tuple(
            matrix.args[row * size + other]
            for row in range(1, size)
            for other in range(size)
            if other != column
        )
        cofactor = _determinant(Node("matrix", minor, (size - 1, size - 1, "")))
        term = Node("mul", (matrix.args[column], cofactor))
        terms.append(Node("neg", (term,)) if column % 2 else term)
    return Node("add", tuple(terms))


def _map(matrix: Node, change: Callable[[Node], Node]) -> Node:
    return Node("matrix", tuple(change(entry) for entry in matrix.args), matrix.value)


def _transposed(matrix: Node) -> Node:
    rows, columns, style = matrix.value
    entries = tuple(
        matrix.args[row * columns + column] for column in range(columns) for row in range(rows)
    )
    return Node("matrix", entries, (columns, rows, style))


def as_vector(node: Node) -> Node | None:
    """Return a column matrix, or a tuple in round or angle brackets, as a tuple; else None."""
    if node.op == "matrix" and node.value[1] == 1 and node.value[0] > 1 and node.value[2] != "{":
        return Node("seq", node.args, "()")
    if node.op == "seq" and node.value in ("()", "<>"):
        return Node("seq", node.args, "()")
    return None


def as_matrix(node: Node) -> Node | None:
    """Return `[[1, 2], [3, 4]]` as a matrix; else None."""
    if node.op != "seq" or any(row.op != "seq" for row in node.args):
        return None
    widths = {len(row.args) for row in node.args}
    if len(widths) != 1 or {row.value for row in node.args} | {node.value} != {"[]"}:
        return None
    entries = tuple(entry for row in node.args for entry in row.args)
    return Node("matrix", entries, (len(node.args), widths.pop(), "("))


# Words


def letters_of(node: Node) -> str | None:
    """Return a product of single letters as the word it spells; else None."""
    if node.op in ("sym", "const"):
        return str(node.value) if len(str(node.value)) == 1 else None
    if node.op != "mul":
        return None
    parts = [letters_of(arg) for arg in node.args]
    return None if None in parts else "".join(part or "" for part in parts)
