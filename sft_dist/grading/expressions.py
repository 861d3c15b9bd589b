r"""Grammar of expressions: sums, products, factors with their exponents.

What has two reasonable readings is refused rather than guessed: `x/yz`, `\sqrt12`, `x2`, `2 3`.
"""

from sft_dist.grading import atoms, vocabulary
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import Node, is_number, number

_NOT_FACTORS = (
    set(vocabulary.RELATIONS)
    | vocabulary.MULTIPLICATIONS
    | vocabulary.DIVISIONS
    | {"pm", "mp", "cup", "cap", "setminus", "lor", "land", "choose", "over", "rfloor", "rceil"}
    | {"rangle", "pmod", "bmod", "mod", "not", "prime", "circ", "degree", "neg"}
)
_OPENERS = ("(", "[", "{", "\\{")


def read_sum(cursor: Cursor) -> Node:
    """Read terms joined by plus, minus and plus-minus."""
    total: Node | None = None
    while True:
        sign = cursor.take().text if _at_sign(cursor) else None
        if sign is None and total is not None:
            return total
        term = _read_signed_product(cursor)
        if sign in ("pm", "mp"):
            left = number(0) if total is None else total
            total = cursor.node("pm", left, term, value="+" if sign == "pm" else "-")
        else:
            term = cursor.node("neg", term) if sign == "-" else term
            total = term if total is None else cursor.node("add", total, term)


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
    product = read_factor(cursor)
    implicit_allowed = True
    while True:
        if cursor.at_operator(vocabulary.MULTIPLICATIONS):
            cursor.take()
            product = cursor.node("mul", product, _read_signed_factor(cursor))
            implicit_allowed = True
        elif cursor.at_operator(vocabulary.DIVISIONS):
            cursor.take()
            divisor = _read_signed_factor(cursor)
            product = cursor.node("div", product, divisor)
            implicit_allowed = is_number(divisor)
        elif starts_factor(cursor) and not (product.op == "seq" and cursor.at("letter", "U")):
            if not implicit_allowed:
                raise UnreadableError("a product directly after a division")
            product = cursor.node("mul", product, _read_adjacent(cursor))
        elif cursor.at("macro", "bmod"):
            cursor.take()
            product = cursor.node("call", product, read_factor(cursor), value="mod")
        else:
            return product


def _read_signed_factor(cursor: Cursor) -> Node:
    if cursor.accept("op", "-"):
        return cursor.node("neg", read_factor(cursor))
    cursor.accept("op", "+")
    return read_factor(cursor)


def _read_adjacent(cursor: Cursor) -> Node:
    if cursor.at("number"):
        raise UnreadableError("a number directly after another factor")
    return read_factor(cursor)


def starts_factor(cursor: Cursor) -> bool:
    """True if the next token begins another factor of a product."""
    token = cursor.peek()
    match token.kind:
        case "number" | "letter" | "begin":
            return True
        case "macro":
            return token.text not in _NOT_FACTORS
        case "op":
            return token.text in _OPENERS or (token.text in ("|", "\\|") and not cursor.bar_closes)
    return False


def read_factor(cursor: Cursor) -> Node:
    """Read an atom with what is attached to it: exponents, factorials, degree signs."""
    is_integer = cursor.at("number") and "." not in cursor.peek().text
    base = atoms.read_atom(cursor)
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
            base = cursor.node("pow", base, atoms.read_exponent(cursor))
        elif cursor.at("op", "_") and base.op == "num":
            base = atoms.read_base_suffix(cursor, base)
        elif cursor.at("op", "_", "'") or cursor.at("macro", "prime"):
            raise UnreadableError(f"{cursor.peek().text!r} after an expression")
        else:
            return base


def _read_mixed(cursor: Cursor, whole: Node) -> Node:
    r"""`3\frac{1}{2}` and `3 1/2` are sums; an improper fraction there has no clear meaning."""
    if cursor.at("macro", "frac"):
        fraction = atoms.read_atom(cursor)
        top, bottom = fraction.args
        if not (is_number(top) and is_number(bottom)):
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
    if not 0 <= top.value < bottom.value or bottom.value.denominator != 1:
        raise UnreadableError("a mixed number with an improper fraction")
    return cursor.node("add", whole, fraction)


def _skip_slash(cursor: Cursor) -> bool:
    cursor.accept("op", "/")
    return False


def _at_degree(cursor: Cursor) -> bool:
    if not cursor.at("op", "^"):
        return False
    if cursor.at("macro", "circ", "degree", offset=1):
        return True
    return (
        cursor.at("op", "{", offset=1)
        and cursor.at("macro", "circ", "degree", offset=2)
        and cursor.at("op", "}", offset=3)
    )


def _read_degree(cursor: Cursor, base: Node) -> Node:
    if not cursor.accept("macro", "degree"):
        for _ in range(4 if cursor.at("op", "{", offset=1) else 2):
            cursor.take()
    if cursor.at("letter", "C", "F") or cursor.at("text", "C", "F"):
        return cursor.node("unit", base, value=f"degree {cursor.take().text}")
    return cursor.node("deg", base)
