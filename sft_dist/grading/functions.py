r"""Grammar of functions and of big operators: `\sin^2 x`, `\log_2(8)`, `\sum_{k=1}^{n} k`."""

from sft_dist.grading import vocabulary
from sft_dist.grading.arguments import read_argument, read_exponent
from sft_dist.grading.brackets import read_braces
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.letters import read_arguments
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import MINUS_ONE, Node, number


def read_big_operator(cursor: Cursor, name: str) -> Node:
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
        body = cursor.grammar.read_product(cursor)
    cursor.bound_names.discard(bound)
    return cursor.node(name, low, high, body, value=bound)


def read_function(cursor: Cursor, name: str) -> Node:
    """Read exponent, base and arguments of a function whose name was taken."""
    name = vocabulary.ALIASES.get(name, name)
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
        return read_arguments(cursor)
    if name == "binom":
        return (read_argument(cursor), read_argument(cursor))
    if cursor.at("op", "{"):
        content = read_braces(cursor)
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
    argument = cursor.grammar.read_factor(cursor)
    while (
        cursor.at_factor()
        and not cursor.at("op", "(", "[", "{", "\\{", "|")
        and not (cursor.at("macro") and cursor.peek().text in vocabulary.FUNCTIONS)
    ):
        if cursor.at("number"):
            raise UnreadableError("a number directly after another factor")
        argument = cursor.node("mul", argument, cursor.grammar.read_factor(cursor))
    if argument.op == "num" and cursor.at("op", "(", "["):
        raise UnreadableError("a number and a bracket after a function")
    return argument
