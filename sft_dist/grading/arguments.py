"""Grammar of what a macro, an exponent or a base suffix applies to."""

from sft_dist.grading.brackets import read_braces, read_bracket
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.numerals import number_in_words
from sft_dist.grading.tree import Node, number


def read_base_suffix(cursor: Cursor, base: Node, digits: str | None = None) -> Node:
    r"""`1011_2`, `31_{\text{seven}}`: keep the digits and the base apart."""
    cursor.expect("op", "_")
    braced = cursor.accept("op", "{")
    token = cursor.take()
    if token.kind == "text":
        radix = number_in_words(token.text.removeprefix("base ").strip())
        if token.text == "base" and cursor.at("number"):
            radix = int(cursor.take().text)
    elif token.kind == "number" and token.text.isdigit() and len(token.text) < 4:
        radix = int(token.text if braced or len(token.text) < 3 else "0")
    else:
        radix = None
    if braced:
        cursor.expect("op", "}")
    return make_based(cursor, digits if digits is not None else str(base.value), radix)


def make_based(cursor: Cursor, digits: str, radix: int | None) -> Node:
    """Make a number of its digits and its base.

    Raises:
        UnreadableError: It is no base, or a digit is too large for it.
    """
    if radix is None or not 2 <= radix <= 36 or not digits.isdigit():
        raise UnreadableError("a subscript on a number that is no base")
    if any(int(digit) >= radix for digit in digits):
        raise UnreadableError("a digit too large for its base")
    return cursor.node("based", value=(digits.lstrip("0") or "0", radix))


def read_argument(cursor: Cursor) -> Node:
    r"""Read what LaTeX takes as one argument: a group, one digit, one letter, one macro."""
    if cursor.at("op", "{"):
        return read_braces(cursor)
    if cursor.at("number"):
        token = cursor.take()
        if not token.text.isdigit() or len(token.text) > 2:
            raise UnreadableError(f"an argument {token.text!r} without braces")
        if len(token.text) == 2:
            rest = number(int(token.text[1]))
            cursor.push_back(type(token)("number", token.text[1], False, rest.value))
        return cursor.node("num", value=number(int(token.text[0])).value)
    if cursor.at("letter") or cursor.at("macro"):
        return cursor.grammar.read_atom(cursor)
    raise UnreadableError(f"expected an argument, found {cursor.peek().text!r}")


def read_exponent(cursor: Cursor) -> Node:
    """Read what follows `^`; without braces a number is taken whole, as plain text means it."""
    if cursor.accept("op", "-"):
        return cursor.node("neg", read_exponent(cursor))
    if cursor.at("number"):
        token = cursor.take()
        if token.value == 1 and cursor.at("op", "/"):
            raise UnreadableError("a fraction as an exponent without brackets")
        return cursor.node("num", value=token.value)
    if cursor.at("op", "{") or cursor.at("op", "("):
        return read_bracket(cursor)
    if cursor.at("letter") or cursor.at("macro"):
        return cursor.grammar.read_atom(cursor)
    raise UnreadableError(f"expected an exponent, found {cursor.peek().text!r}")
