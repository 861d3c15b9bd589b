r"""Grammar of expressions: sums, products, factors with their exponents.

What has two reasonable readings is refused rather than guessed: `x/yz`, `\sqrt12`, `x2`, `2 3`.
"""

from collections.abc import Callable

from sft_dist.grading import vocabulary
from sft_dist.grading.arguments import read_base_suffix, read_exponent
from sft_dist.grading.atoms import read_atom
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import Node, contains, is_number, number, walk

_LENGTHS = ("abs", "call")  # of a vector, or a determinant: numbers


def read_sum(cursor: Cursor) -> Node:
    """Read terms joined by plus, minus and plus-minus."""
    terms: list[Node] = []
    while True:
        sign = cursor.take().text if _at_sign(cursor) else None
        if sign is None and terms:
            return _joined(cursor, "add", terms)
        term = _read_signed_product(cursor)
        if sign in ("pm", "mp"):
            left = _joined(cursor, "add", terms) if terms else number(0)
            terms = [cursor.node("pm", left, term, value="+" if sign == "pm" else "-")]
        else:
            terms.append(cursor.node("neg", term) if sign == "-" else term)


def _joined(cursor: Cursor, op: str, parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else cursor.node(op, *parts)


def _at_sign(cursor: Cursor) -> bool:
    return cursor.at_operator({"+", "-", "pm", "mp"})


def _read_signed_product(cursor: Cursor) -> Node:
    """`- -3` and `+-3` are read; a sign belongs to the whole product."""
    with cursor.nested(bar_closes=cursor.bar_closes):
        if cursor.accept("op", "-"):
            return cursor.node("neg", _read_signed_product(cursor))
        if cursor.accept("op", "+"):
            return _read_signed_product(cursor)
    return read_product(cursor)


def read_product(cursor: Cursor) -> Node:
    """Read factors joined by signs or by standing side by side; left to right."""
    factor, bold = _read_directed(cursor, read_factor)
    factors = [factor]
    implicit_allowed = True
    while True:
        if cursor.at_operator(vocabulary.MULTIPLICATIONS):
            bold = _read_multiplied(cursor, factors, bold)
            implicit_allowed = True
        elif cursor.at_operator(vocabulary.DIVISIONS):
            cursor.take()
            divisor = _read_signed_factor(cursor)
            factors = [cursor.node("div", _joined(cursor, "mul", factors), divisor)]
            implicit_allowed, bold = is_number(divisor), False
        elif cursor.at_factor() and not (factors[-1].op == "seq" and cursor.at("letter", "U")):
            if not implicit_allowed:
                raise UnreadableError("a product directly after a division")
            bold = _read_beside(cursor, factors, bold)
        elif cursor.accept("macro", "bmod"):
            dividend = _joined(cursor, "mul", factors)
            factors = [cursor.node("call", dividend, read_factor(cursor), value="mod")]
        else:
            return _joined(cursor, "mul", factors)


def _read_multiplied(cursor: Cursor, factors: list[Node], bold: bool) -> bool:
    """Read a sign and the factor after it; say whether that is bold. A cross keeps the order."""
    crossing = cursor.take().text == "times"
    factor, next_bold = _read_directed(cursor, _read_signed_factor)
    if crossing and (_is_vector(factors[-1]) or (bold and next_bold)):
        factor = cursor.node("cross", factors.pop(), factor)
    factors.append(factor)
    return next_bold


def _read_beside(cursor: Cursor, factors: list[Node], bold: bool) -> bool:
    """Read a factor without a sign; say whether it is bold. Matrices side by side keep order."""
    if cursor.at("number") and factors[-1].op != "fact":
        raise UnreadableError("a number directly after another factor")
    factor, next_bold = _read_directed(cursor, read_factor)
    if bold and next_bold:
        left = factors.pop()
        parts = left.args if left.op == "ordered" else (left,)
        factor = cursor.node("ordered", *parts, factor)
    factors.append(factor)
    return next_bold


def _read_directed(cursor: Cursor, read: Callable[[Cursor], Node]) -> tuple[Node, bool]:
    """Read a factor; say whether bold letters or a matrix are in it, whose product has an order."""
    start = cursor.position
    factor = read(cursor)
    directed = cursor.any_bold_since(start) or contains(factor, "matrix")
    return factor, directed and factor.op not in _LENGTHS


def _is_vector(node: Node) -> bool:
    """Letters under an arrow or a hat: their cross product changes its sign with their order."""
    return node.op not in _LENGTHS and any(
        part.op == "cross" or (part.op == "sym" and part.value.startswith(("vec ", "hat ")))
        for part in walk(node)
    )


def _read_signed_factor(cursor: Cursor) -> Node:
    if cursor.accept("op", "-"):
        return cursor.node("neg", read_factor(cursor))
    cursor.accept("op", "+")
    return read_factor(cursor)


def read_factor(cursor: Cursor) -> Node:
    """Read an atom with what is attached to it: exponents, factorials, degree signs."""
    is_integer = cursor.at("number") and "." not in cursor.peek().text
    base = read_atom(cursor)
    if is_integer and base.op == "num":
        base = _read_mixed(cursor, base)
    powered = False
    while True:
        if cursor.at("op", "!"):
            cursor.take()
            if cursor.at("op", "!"):
                raise UnreadableError("a double factorial")
            base = cursor.node("fact", base)
        elif cursor.at("macro", "degree") or _at_degree(cursor):
            base = _read_degree(cursor, base)
        elif cursor.at("op", "^"):
            if powered:
                raise UnreadableError("two exponents on one base")
            powered = True
            cursor.take()
            base = cursor.node("pow", base, read_exponent(cursor))
        elif cursor.at("op", "_") and base.op == "num":
            base = read_base_suffix(cursor, base)
        elif cursor.at("op", "_", "'") or cursor.at("macro", "prime"):
            raise UnreadableError(f"{cursor.peek().text!r} after an expression")
        else:
            return base


def _read_mixed(cursor: Cursor, whole: Node) -> Node:
    r"""`3\frac{1}{2}` and `3 1/2` are sums; an improper fraction there has no clear meaning."""
    if cursor.at("macro", "frac"):
        fraction = read_atom(cursor)
        top, bottom = fraction.args
        if not (is_number(top) and is_number(bottom)):
            if cursor.at("op", "^", "!"):
                raise UnreadableError("an exponent on a number before a fraction")
            return cursor.node("mul", whole, fraction)
    elif (
        cursor.at("number")
        and cursor.peek().spaced
        and cursor.at("op", "/", offset=1)
        and cursor.at("number", offset=2)
    ):
        top, bottom = (number(cursor.take().value or 0) for _ in "ab" if not _skip_slash(cursor))
        fraction = cursor.node("div", top, bottom)
    else:
        return whole
    if cursor.at("op", "^", "!", "_") and not _at_degree(cursor):
        raise UnreadableError("an exponent on a mixed number")
    if not 0 <= top.value < bottom.value or bottom.value.denominator != 1:
        raise UnreadableError("a mixed number with an improper fraction")
    return cursor.node("add", whole, fraction)


def _skip_slash(cursor: Cursor) -> bool:
    cursor.accept("op", "/")
    return False


def _at_degree(cursor: Cursor) -> bool:
    if not cursor.at("op", "^"):
        return False
    if _is_degree_mark(cursor, 1):
        return True
    braced = cursor.at("op", "{", offset=1) and cursor.at("op", "}", offset=3)
    return braced and _is_degree_mark(cursor, 2)


def _is_degree_mark(cursor: Cursor, offset: int) -> bool:
    """A small circle; some write the letter o."""
    if cursor.at("macro", "circ", "degree", offset=offset):
        return True
    return cursor.at("letter", "o", offset=offset) or cursor.at("text", "o", offset=offset)


def _read_degree(cursor: Cursor, base: Node) -> Node:
    if not cursor.accept("macro", "degree"):
        for _ in range(4 if cursor.at("op", "{", offset=1) else 2):
            cursor.take()
    if cursor.at("letter", "C", "F") or cursor.at("text", "C", "F"):
        return cursor.node("unit", base, value=f"degree {cursor.take().text}")
    return cursor.node("deg", base)
