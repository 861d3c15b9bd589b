"""Grammar of letters: subscripts, derivative marks, and names of functions before a bracket."""

from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import Node, key

_DIFFERENTIAL = Node("sym", (), "d")
_CALLABLE = set("fghFGH")  # letters that a bracket makes a function of, not a factor


def read_symbol(cursor: Cursor, letter: str) -> Node:
    """Read what belongs to a letter that was taken: it is a symbol, a constant or a call."""
    name = letter
    if cursor.accept("op", "_"):
        name += "_" + flat_argument(cursor)
    num_primes = _read_primes(cursor)
    name += "'" * num_primes
    if name.startswith("mathbb "):
        return cursor.node("const", value=name)
    if letter in _CALLABLE and _at_inverse(cursor):
        for _ in range(5):
            cursor.take()
        name += "^{-1}"
    if letter == "C" and name == "C" and _at_choose(cursor):
        return cursor.node("binom", *read_arguments(cursor))
    if cursor.at("op", "(") and (letter in _CALLABLE or num_primes or _defines_function(cursor)):
        return cursor.node("call", *read_arguments(cursor), value=name)
    if name in ("e", "i") and name not in cursor.bound_names:
        return cursor.node("const", value=name)
    return cursor.node("sym", value=name)


def _read_primes(cursor: Cursor) -> int:
    count = 0
    while True:
        if cursor.at("op", "'") or cursor.at("macro", "prime"):
            cursor.take()
            count += 1
        elif cursor.at("op", "^") and cursor.at("macro", "prime", offset=1):
            cursor.take()
        elif (
            cursor.at("op", "^")
            and cursor.at("op", "{", offset=1)
            and cursor.at("macro", "prime", offset=2)
        ):
            cursor.take()
            cursor.take()
            while cursor.accept("macro", "prime"):
                count += 1
            cursor.expect("op", "}")
        else:
            return count


def _at_inverse(cursor: Cursor) -> bool:
    texts = [cursor.peek(offset).text for offset in range(6)]
    return texts == ["^", "{", "-", "1", "}", "("]


def _at_choose(cursor: Cursor) -> bool:
    """`C(5, 2)`."""
    kinds = [cursor.peek(offset).kind for offset in range(5)]
    texts = [cursor.peek(offset).text for offset in (0, 2, 4)]
    return kinds == ["op", "number", "op", "number", "op"] and texts == ["(", ",", ")"]


def derivative_name(cursor: Cursor, top: Node, bottom: Node) -> Node | None:
    r"""Return `\frac{dy}{dx}`, `\frac{d^2y}{dx^2}`, `\frac{d}{dx}` as one name; else None.

    Their d is no factor, so it must not cancel.
    """
    first = top.args[0] if top.op == "mul" else top
    order = first.args[0] if first.op == "pow" else first
    differential = bottom.op == "mul" and bottom.args[0] == _DIFFERENTIAL
    if order != _DIFFERENTIAL or not differential:
        return None
    return cursor.node("sym", value=f"derivative {key(top)} {key(bottom)}")


def _defines_function(cursor: Cursor) -> bool:
    r"""`P(x) =`, `P(\text{red}) =`: the bracket holds plain names and an equals sign follows."""
    offset = 1
    while cursor.peek(offset).kind in ("letter", "number", "text"):
        offset += 1
        if cursor.at("op", ",", offset=offset):
            offset += 1
    return (
        offset > 1
        and cursor.at("op", ")", offset=offset)
        and cursor.at("op", "=", offset=offset + 1)
    )


def read_arguments(cursor: Cursor) -> tuple[Node, ...]:
    """Read a bracket as the arguments of a function."""
    opener = cursor.expect("op", "(", "[").text
    content = cursor.read_list()
    cursor.expect("op", ")" if opener == "(" else "]")
    return content.args if content.op == "list" else (content,)


def flat_argument(cursor: Cursor) -> str:
    """Take one LaTeX argument as text: a subscript or the letters under a bar."""
    if not cursor.accept("op", "{"):
        return cursor.take().text
    parts: list[str] = []
    depth = 1
    while not cursor.at_end():
        token = cursor.take()
        depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind == "op" else 0
        if depth == 0:
            return "".join(parts) if len(parts) == 1 else "{" + " ".join(parts) + "}"
        parts.append(token.text)
    raise UnreadableError("a brace that is never closed")
