"""Grammar of matrices and column vectors."""

from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import MAX_TERMS, OverLimitError, UnreadableError
from sft_dist.grading.tree import Node

_STYLES = {"pmatrix": "(", "bmatrix": "(", "Bmatrix": "{", "matrix": "", "smallmatrix": "",
           "array": "", "vmatrix": "|"}  # fmt: skip


def read_matrix(cursor: Cursor) -> Node:
    r"""Read `\begin{pmatrix} ... \end{pmatrix}` and its kin; round and square are the same."""
    name = cursor.expect("begin").text
    if name not in _STYLES:
        raise UnreadableError(f"environment {name!r}")
    rows: list[list[Node]] = [[]]
    while not cursor.at("end"):
        rows[-1].append(cursor.read_sum())
        if sum(map(len, rows)) > MAX_TERMS:
            raise OverLimitError("a matrix with too many entries")
        if cursor.accept("row"):
            rows.append([])
        elif not cursor.at("end"):
            cursor.expect("op", "&")
    cursor.expect("end", name)
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnreadableError("a matrix with rows of different lengths")
    entries = [entry for row in rows for entry in row]
    shape = (len(rows), len(rows[0]))
    matrix = cursor.node("matrix", *entries, value=(*shape, _STYLES[name].replace("|", "")))
    return cursor.node("call", matrix, value="det") if name == "vmatrix" else matrix
