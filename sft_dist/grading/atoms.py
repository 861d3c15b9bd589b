r"""Grammar of atoms: the smallest units that an exponent can stand on.

A macro that is not known here is refused, never skipped.
"""

from sft_dist.grading import vocabulary
from sft_dist.grading.arguments import read_argument, read_base_suffix
from sft_dist.grading.brackets import read_bracket
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.functions import read_big_operator, read_function
from sft_dist.grading.letters import derivative_name, flat_argument, read_symbol
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.matrices import read_matrix
from sft_dist.grading.tree import Node, number

_CONSTANT_MACROS = {"pi": "pi", "infty": "infty"}
_SAME_DECORATION = {"bar": "overline", "widehat": "hat", "widetilde": "tilde",
                    "overrightarrow": "vec", "measuredangle": "angle",
                    "wideparen": "arc", "overarc": "arc", "widearc": "arc"}  # fmt: skip


def read_atom(cursor: Cursor) -> Node:
    """Read the smallest unit that an exponent can stand on."""
    token = cursor.peek()
    match token.kind:
        case "number":
            return _read_number(cursor)
        case "letter":
            return read_symbol(cursor, cursor.take().text)
        case "macro":
            return _read_macro(cursor, cursor.take().text)
        case "begin":
            return read_matrix(cursor)
        case "op":
            return read_bracket(cursor)
        case "text" if len(token.text) == 1 and token.text.isalpha():
            return read_symbol(cursor, cursor.take().text)
    raise UnreadableError(f"expected an expression, found {token.text!r}")


def _read_number(cursor: Cursor) -> Node:
    token = cursor.take()
    value = cursor.node("num", value=token.value)
    if cursor.at("op", "_"):
        return read_base_suffix(cursor, value, token.text)
    return value


def _read_macro(cursor: Cursor, name: str) -> Node:
    if name == "frac":
        top = read_argument(cursor)
        bottom = read_argument(cursor)
        return derivative_name(cursor, top, bottom) or cursor.node("div", top, bottom)
    if name in ("sqrt", "usqrt", "ucbrt", "ufourthrt"):
        return _read_root(cursor, name)
    if name in _CONSTANT_MACROS:
        return cursor.node("const", value=_CONSTANT_MACROS[name])
    if name in vocabulary.GREEK:
        return read_symbol(cursor, vocabulary.SAME_LETTER.get(name, name))
    if name in ("sum", "prod"):
        return read_big_operator(cursor, name)
    if name in vocabulary.DECORATIONS:
        return _read_decoration(cursor, name)
    if name in ("lfloor", "lceil"):
        content = cursor.read_sum()
        cursor.expect("macro", name.replace("l", "r", 1))
        return cursor.node("call", content, value=name[1:])
    if name in vocabulary.FUNCTIONS:
        return read_function(cursor, name)
    return _read_other_macro(cursor, name)


def _read_other_macro(cursor: Cursor, name: str) -> Node:
    if name == "langle":
        content = cursor.read_list()
        cursor.expect("macro", "rangle")
        items = content.args if content.op == "list" else (content,)
        return cursor.node("seq", *items, value="<>")
    if name == "emptyset":
        return cursor.node("set")
    if name == "ldots":
        return cursor.node("dots")
    raise UnreadableError(f"unknown macro \\{name}")


def _read_root(cursor: Cursor, name: str) -> Node:
    index = number({"ucbrt": 3, "ufourthrt": 4}.get(name, 2))
    if name in ("sqrt", "usqrt") and cursor.accept("op", "["):
        index = cursor.read_sum()
        cursor.expect("op", "]")
    if name == "sqrt":
        if cursor.at("number") and len(cursor.peek().text) > 1:
            raise UnreadableError("a root of several digits without braces")
        if cursor.at("op", "("):
            raise UnreadableError("a root sign before a round bracket")
        radicand = read_argument(cursor)
    else:
        radicand = read_atom(cursor)
    return cursor.node("root", radicand, index)


def _read_decoration(cursor: Cursor, name: str) -> Node:
    """A bar, hat, angle or the like makes a name of what it stands on; so letters keep order."""
    name = _SAME_DECORATION.get(name, name)
    if name in ("angle", "triangle") and not cursor.at("op", "{"):
        letters = ""
        while cursor.at("letter"):
            letters += cursor.take().text
        if not letters:
            raise UnreadableError(f"\\{name} without a name")
        return cursor.node("sym", value=f"{name} {letters}")
    argument = flat_argument(cursor)
    if argument == "{}":
        raise UnreadableError(f"\\{name} over nothing")
    return read_symbol(cursor, f"{name} {argument}")
