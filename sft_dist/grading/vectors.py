"""Matrices and vectors: scalar factors, determinants, and vectors written as tuples."""

from collections.abc import Callable

from sft_dist.grading.forms import is_expression
from sft_dist.grading.limits import MAX_DETERMINANT
from sft_dist.grading.tree import Node


def simplify_matrix(node: Node) -> Node:
    """Carry a scalar factor, a sign or a transposition into a matrix."""
    match node.op, node.args:
        case "neg", (Node(op="matrix") as matrix,):
            return _map(matrix, lambda entry: Node("neg", (entry,)))
        case "neg", (Node(op="seq") as point,) if point.value in ("()", "<>"):
            return Node("seq", tuple(Node("neg", (entry,)) for entry in point.args), point.value)
        case "div", (Node(op="matrix") as matrix, scalar):
            return _map(matrix, lambda entry: Node("div", (entry, scalar)))
        case "mul", (*scalars, Node(op="matrix") as matrix) if all(map(is_expression, scalars)):
            return _map(matrix, lambda entry: Node("mul", (*scalars, entry)))
        case "mul", (Node(op="sym") as name, Node(op="seq") as point) if name.value.isupper():
            return point  # a point with its name: A(2, 3)
        case "call", (Node(op="matrix") as matrix,) if node.value == "det":
            rows, columns, _ = matrix.value
            return node if rows != columns or rows > MAX_DETERMINANT else _determinant(matrix)
        case "pow", (Node(op="matrix") as matrix, Node(op="sym", value="T")):
            return _transposed(matrix)
    return node


def other_point(left: Node, right: Node) -> bool:
    """True for two points with different names: A(2, 3) is not B(2, 3)."""
    first, second = _point_name(left), _point_name(right)
    return None not in (first, second) and first != second


def _point_name(node: Node) -> str | None:
    match node.op, node.args:
        case "mul", (Node(op="sym") as name, Node(op="seq")) if name.value.isupper():
            return str(name.value)
    return None


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
