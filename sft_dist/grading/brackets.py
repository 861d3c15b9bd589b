"""Grammar of brackets: groups, tuples and intervals, sets, absolute values."""

from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import Node

_CLOSERS = {"(": (")", "]"), "[": (")", "]")}


def read_bracket(cursor: Cursor) -> Node:
    """Read from an opening bracket or bar to its end."""
    opener = cursor.peek().text
    if opener in _CLOSERS:
        return _read_round(cursor)
    if opener == "{":
        return read_braces(cursor)
    if opener == "\\{":
        return _read_set(cursor)
    if opener in ("|", "\\|"):
        cursor.take()
        content = cursor.read_sum(bar_closes=True)
        cursor.expect("op", opener)
        if content.op == "matrix" and opener == "|":
            return cursor.node("call", content, value="det")
        if opener == "|":
            return cursor.node("abs", content)
        return cursor.node("call", content, value="norm")
    raise UnreadableError(f"expected an expression, found {opener!r}")


def _read_round(cursor: Cursor) -> Node:
    opener = cursor.take().text
    content = cursor.read_list()
    closer = cursor.expect("op", *_CLOSERS[opener]).text
    if content.op == "list":
        if content.value != ",":
            raise UnreadableError("'and' or 'or' in brackets")
        return cursor.node("seq", *content.args, value=opener + closer)
    if opener + closer not in ("()", "[]"):
        raise UnreadableError("brackets that do not match")
    if content.op == "matrix" and content.value[2] == "":
        return Node("matrix", content.args, (*content.value[:2], "("))
    return content


def read_braces(cursor: Cursor) -> Node:
    r"""Read `{...}`: a group, a binomial or fraction of old TeX, or a set without backslashes."""
    cursor.expect("op", "{")
    content = cursor.read_list()
    if cursor.at("macro", "choose", "over"):
        infix = {"choose": "binom", "over": "div"}[cursor.take().text]
        content = cursor.node(infix, content, cursor.read_sum())
    cursor.expect("op", "}")
    return Node("set", content.args) if content.op == "list" else content


def _read_set(cursor: Cursor) -> Node:
    r"""`\{1, 2\}` or `\{x : x > 2\}`."""
    cursor.expect("op", "\\{")
    if cursor.accept("op", "\\}"):
        return cursor.node("set")
    content = cursor.read_list(bar_closes=True)
    if cursor.at("op", "|", ":", "\\|") or cursor.at("macro", "mid", "colon"):
        cursor.take()
        condition = cursor.read_list()
        cursor.expect("op", "\\}")
        return cursor.node("builder", content, condition)
    cursor.expect("op", "\\}")
    if content.op == "list":
        return cursor.node("set", *content.args)
    return cursor.node("set", content)
