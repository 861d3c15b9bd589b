r"""Grammar of atoms: numbers, letters, brackets, macros with arguments, functions.

A macro that is not known here is refused, never skipped.
"""

from sft_dist.grading import expressions, vocabulary
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.matrices import read_matrix
from sft_dist.grading.numerals import number_in_words
from sft_dist.grading.tree import MINUS_ONE, Node, number

_CLOSERS = {"(": (")", "]"), "[": (")", "]")}
_CONSTANT_MACROS = {"pi": "pi", "infty": "infty"}
_SINGLE_ARGUMENT = {"floor": ("lfloor", "rfloor"), "ceil": ("lceil", "rceil")}
_CALLABLE = set("fghFGH")  # letters that a bracket makes a function of, not a factor
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
            return _read_symbol(cursor, cursor.take().text)
        case "macro":
            return _read_macro(cursor, cursor.take().text)
        case "begin":
            return read_matrix(cursor)
        case "op":
            return _read_bracket(cursor)
        case "text" if len(token.text) == 1 and token.text.isalpha():
            return _read_symbol(cursor, cursor.take().text)
    raise UnreadableError(f"expected an expression, found {token.text!r}")


def _read_number(cursor: Cursor) -> Node:
    token = cursor.take()
    value = cursor.node("num", value=token.value)
    if cursor.at("op", "_"):
        return read_base_suffix(cursor, value, token.text)
    return value


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
    digits = digits if digits is not None else str(base.value)
    if radix is None or not 2 <= radix <= 36 or not digits.isdigit():
        raise UnreadableError("a subscript on a number that is no base")
    if any(int(digit) >= radix for digit in digits):
        raise UnreadableError("a digit too large for its base")
    return cursor.node("based", value=(digits.lstrip("0") or "0", radix))


# Letters


def _read_symbol(cursor: Cursor, letter: str) -> Node:
    name = letter
    if cursor.accept("op", "_"):
        name += "_" + _flat_argument(cursor)
    num_primes = _read_primes(cursor)
    name += "'" * num_primes
    if name.startswith("mathbb "):
        return cursor.node("const", value=name)
    if letter in _CALLABLE and _at_inverse(cursor):
        for _ in range(5):
            cursor.take()
        name += "^{-1}"
    if letter == "C" and name == "C" and _at_choose(cursor):
        return cursor.node("binom", *_read_arguments(cursor))
    if cursor.at("op", "(") and (letter in _CALLABLE or num_primes or _defines_function(cursor)):
        return cursor.node("call", *_read_arguments(cursor), value=name)
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


def _defines_function(cursor: Cursor) -> bool:
    """`P(x) =` and `P(A, B) =`: the bracket holds plain names and an equals sign follows."""
    offset = 1
    while cursor.at("letter", offset=offset) or cursor.at("number", offset=offset):
        offset += 1
        if cursor.at("op", ",", offset=offset):
            offset += 1
    return (
        offset > 1
        and cursor.at("op", ")", offset=offset)
        and cursor.at("op", "=", offset=offset + 1)
    )


def _read_arguments(cursor: Cursor) -> tuple[Node, ...]:
    opener = cursor.expect("op", "(", "[").text
    content = cursor.read_list()
    cursor.expect("op", ")" if opener == "(" else "]")
    return content.args if content.op == "list" else (content,)


def _flat_argument(cursor: Cursor) -> str:
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


# Brackets


def _read_bracket(cursor: Cursor) -> Node:
    opener = cursor.peek().text
    if opener in _CLOSERS:
        return _read_round(cursor)
    if opener == "{":
        return _read_braces(cursor)
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


def _read_braces(cursor: Cursor) -> Node:
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


# Arguments of macros


def read_argument(cursor: Cursor) -> Node:
    r"""Read what LaTeX takes as one argument: a group, one digit, one letter, one macro."""
    if cursor.at("op", "{"):
        return _read_braces(cursor)
    if cursor.at("number"):
        token = cursor.take()
        if not token.text.isdigit() or len(token.text) > 2:
            raise UnreadableError(f"an argument {token.text!r} without braces")
        if len(token.text) == 2:
            rest = number(int(token.text[1]))
            cursor.push_back(type(token)("number", token.text[1], False, rest.value))
        return cursor.node("num", value=number(int(token.text[0])).value)
    if cursor.at("letter") or cursor.at("macro"):
        return read_atom(cursor)
    raise UnreadableError(f"expected an argument, found {cursor.peek().text!r}")


def _read_plain_argument(cursor: Cursor) -> Node:
    """`sqrt(2)`, `sqrt 12`: the argument of plain text, where a number is taken whole."""
    return read_atom(cursor)


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
        return _read_bracket(cursor)
    if cursor.at("letter") or cursor.at("macro"):
        return read_atom(cursor)
    raise UnreadableError(f"expected an exponent, found {cursor.peek().text!r}")


def _read_macro(cursor: Cursor, name: str) -> Node:
    if name == "frac":
        top = read_argument(cursor)
        bottom = read_argument(cursor)
        return cursor.node("div", top, bottom)
    if name in ("sqrt", "usqrt", "ucbrt", "ufourthrt"):
        return _read_root(cursor, name)
    if name in _CONSTANT_MACROS:
        return cursor.node("const", value=_CONSTANT_MACROS[name])
    if name in vocabulary.GREEK:
        return _read_symbol(cursor, vocabulary.SAME_LETTER.get(name, name))
    if name in ("sum", "prod"):
        return _read_big_operator(cursor, name)
    if name in vocabulary.DECORATIONS:
        return _read_decoration(cursor, name)
    if name in ("lfloor", "lceil"):
        content = cursor.read_sum()
        cursor.expect("macro", name.replace("l", "r", 1))
        return cursor.node("call", content, value=name[1:])
    if name in vocabulary.FUNCTIONS:
        return _read_function(cursor, name)
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
        radicand = _read_plain_argument(cursor)
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
    argument = _flat_argument(cursor)
    if argument == "{}":
        raise UnreadableError(f"\\{name} over nothing")
    return _read_symbol(cursor, f"{name} {argument}")


def _read_big_operator(cursor: Cursor, name: str) -> Node:
    r"""`\sum_{k=1}^{n} body`; the body is the product that follows."""
    cursor.expect("op", "_")
    cursor.expect("op", "{")
    bound = cursor.expect("letter").text
    cursor.expect("op", "=")
    low = cursor.read_sum()
    cursor.expect("op", "}")
    cursor.expect("op", "^")
    high = read_exponent(cursor)
    cursor.bound_names.add(bound)
    with cursor.nested(bar_closes=cursor.bar_closes):
        body = expressions.read_product(cursor)
    cursor.bound_names.discard(bound)
    return cursor.node(name, low, high, body, value=bound)


# Functions


def _read_function(cursor: Cursor, name: str) -> Node:
    power: Node | None = None
    base: Node | None = None
    for _ in range(2):
        if cursor.at("op", "_") and name == "log":
            cursor.take()
            base = _read_log_base(cursor)
        elif cursor.at("op", "^") and power is None:
            cursor.take()
            power = read_exponent(cursor)
    if power is not None and _is_minus_one(power):
        if name not in vocabulary.INVERSES:
            raise UnreadableError(f"exponent -1 on {name}")
        name, power = f"arc{name}", None
    arguments = _read_function_arguments(cursor, name)
    result = _make_function(cursor, name, base, arguments)
    return result if power is None else cursor.node("pow", result, power)


def _read_log_base(cursor: Cursor) -> Node:
    if cursor.at("number"):  # `log_10 5` of plain text; braces are usual in LaTeX
        return cursor.node("num", value=cursor.take().value)
    return read_argument(cursor)


def _is_minus_one(node: Node) -> bool:
    return node == MINUS_ONE or (node.op == "neg" and node.args[0] == number(1))


def _make_function(
    cursor: Cursor, name: str, base: Node | None, arguments: tuple[Node, ...]
) -> Node:
    if name in ("abs", "det", "binom") or len(arguments) > 1:
        expected = {"binom": 2, "abs": 1, "det": 1, "gcd": 0, "lcm": 0, "max": 0, "min": 0}
        if expected.get(name, 1) not in (0, len(arguments)):
            raise UnreadableError(f"{name} of {len(arguments)} arguments")
    if name in ("abs", "binom"):
        return cursor.node(name, *arguments)
    if name == "log":
        return cursor.node("log", base or number(10), arguments[0])
    if name == "exp":
        return cursor.node("pow", cursor.node("const", value="e"), arguments[0])
    return cursor.node("call", *arguments, value=name)


def _read_function_arguments(cursor: Cursor, name: str) -> tuple[Node, ...]:
    if cursor.at("op", "(", "["):
        return _read_arguments(cursor)
    if name == "binom":
        return (read_argument(cursor), read_argument(cursor))
    if cursor.at("op", "{"):
        content = _read_braces(cursor)
        if cursor.at("op", "^"):
            raise UnreadableError("an exponent on the argument of a function")
        return (content,)
    with cursor.nested(bar_closes=cursor.bar_closes):
        argument = _read_bare_argument(cursor)
    if cursor.at("op", "/"):
        raise UnreadableError("a division after a function without brackets")
    return (argument,)


def _read_bare_argument(cursor: Cursor) -> Node:
    r"""`\sin 2x`: factors up to the next function, bracket or sign."""
    if cursor.accept("op", "-"):
        return cursor.node("neg", _read_bare_argument(cursor))
    argument = expressions.read_factor(cursor)
    while (
        expressions.starts_factor(cursor)
        and not cursor.at("op", "(", "[", "{", "\\{", "|")
        and not (cursor.at("macro") and cursor.peek().text in vocabulary.FUNCTIONS)
    ):
        if cursor.at("number"):
            raise UnreadableError("a number directly after another factor")
        argument = cursor.node("mul", argument, expressions.read_factor(cursor))
    if argument.op == "num" and cursor.at("op", "(", "["):
        raise UnreadableError("a number and a bracket after a function")
    return argument
