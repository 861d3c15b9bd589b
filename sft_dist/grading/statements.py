r"""Grammar of whole answers: lists, equations, inequalities, intervals, units, words, times.

read_answer(text) -> tree
"""

import re

from sft_dist.grading import units, vocabulary
from sft_dist.grading.characters import fold
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.expressions import read_sum
from sft_dist.grading.limits import MAX_TREE_DEPTH, OverLimitError, UnreadableError
from sft_dist.grading.tokens import Token, tokenize
from sft_dist.grading.tree import Node, depth, number

_SET_OPERATIONS = {"cup": "union", "cap": "inter", "setminus": "minus"}
_LONG_DIGITS = re.compile(
    r"\(?\s*(?:\\(?:text|mathrm)\s*\{)?\s*([0-9A-F]*[A-F][0-9A-F]*)\s*\}?\s*\)?\s*_\s*\{?\s*(\d\d)\s*\}?"
)
_CHOICE = re.compile(r"\(([A-Z])\)[.:]?|([A-Z])[.):]")
_ANNOUNCEMENTS = {"answer", "the answer", "the answer is", "answer is", "final answer",
                  "the final answer is", "final answer is"}  # fmt: skip
_TRAILING = {".", ",", ";", ":"}
_WORDS_ONLY = re.compile(r"[^\W\d_]{2,}(?:[\s'-]+[^\W\d_]+)*[.!]?")


def read_answer(text: str, tokens: list[Token] | None = None) -> Node:
    """Read an answer into a tree; `tokens` are those of `text` where the caller has them.

    Raises:
        UnreadableError: It is outside the grammar or ambiguous.
        OverLimitError: It is too large.
    """
    long_digits = _LONG_DIGITS.fullmatch(fold(text).strip())
    if long_digits and all(int(digit, 36) < int(long_digits[2]) for digit in long_digits[1]):
        return Node("based", (), (long_digits[1].lstrip("0"), int(long_digits[2])))
    tokens = list(tokenize(text) if tokens is None else tokens)
    while tokens and tokens[-1].kind == "op" and tokens[-1].text in _TRAILING:
        tokens.pop()
    if _starts_with_choice(tokens):
        tokens[:3] = [Token("text", f"({tokens[1].text})")]
    if _WORDS_ONLY.fullmatch(text.strip()) and _is_prose(tokens):
        return Node("text", (), units.words_of(text))
    cursor = Cursor(tokens, read_list, read_sum)
    answer = read_list(cursor)
    if not cursor.at_end():
        raise UnreadableError(f"{cursor.peek().text!r} where the answer should end")
    if depth(answer) > MAX_TREE_DEPTH:
        raise OverLimitError("operations nested too deep")
    return answer


def _starts_with_choice(tokens: list[Token]) -> bool:
    """`(C) 5`, a choice letter and its value in plain text."""
    if len(tokens) < 4 or tokens[3].kind != "number":
        return False
    return [token.text for token in tokens[:3:2]] == ["(", ")"] and tokens[1].text in "ABCDE"


def _is_prose(tokens: list[Token]) -> bool:
    """Plain words alone, such as `right triangle` or `none of these`."""
    words = [token for token in tokens if token.kind == "text" and len(token.text) > 1]
    joined = any(units.words_of(token.text) in ("and", "or") for token in words)
    return (
        bool(words) and not joined and all(token.kind not in ("number", "op") for token in tokens)
    )


def read_list(cursor: Cursor) -> Node:
    """Read statements separated by commas, semicolons, `and`, `or`."""
    items = [_read_statement(cursor)]
    joint = ","
    while True:
        found = _accept_separator(cursor)
        if found is None:
            break
        joint = found if found != "," else joint
        items.append(_read_statement(cursor))
    return items[0] if len(items) == 1 else cursor.node("list", *items, value=joint)


def _accept_separator(cursor: Cursor) -> str | None:
    found = "," if cursor.accept("op", ",", ";") else None
    if cursor.at("text"):
        words = units.words_of(cursor.peek().text)
        if words in ("and", "or"):
            cursor.take()
            return words
    elif cursor.accept("macro", "lor"):
        return "or"
    elif cursor.accept("macro", "land") or cursor.accept("op", "&"):
        return "and"
    return found


def _read_statement(cursor: Cursor) -> Node:
    """Read sides joined by relation signs."""
    relations: list[str] = []
    sides: list[Node] = []
    if cursor.at("op", "=") or cursor.at("macro", "approx"):
        cursor.take()
    while True:
        sides.append(_read_set_expression(cursor))
        if not cursor.at_relation():
            break
        relations.append(_read_relation(cursor))
    if cursor.accept("macro", "pmod", "mod"):
        sides[-1] = cursor.node("mod", sides[-1], _read_modulus(cursor))
    if not relations:
        return sides[0]
    return cursor.node("rel", *sides, value=tuple(relations))


def _read_relation(cursor: Cursor) -> str:
    if cursor.accept("macro", "not"):
        inner = _read_relation(cursor)
        if inner not in ("=", "in"):
            raise UnreadableError("a crossed-out relation")
        return "!=" if inner == "=" else "notin"
    return vocabulary.RELATIONS[cursor.take().text]


def _read_modulus(cursor: Cursor) -> Node:
    if cursor.accept("op", "{"):
        modulus = cursor.read_sum()
        cursor.expect("op", "}")
        return modulus
    return read_sum(cursor)


def _read_set_expression(cursor: Cursor) -> Node:
    left = _read_ratio(cursor)
    while True:
        if cursor.at("macro", *_SET_OPERATIONS):
            name = _SET_OPERATIONS[cursor.take().text]
        elif left.op in ("seq", "union") and cursor.accept("letter", "U"):
            name = "union"
        else:
            return left
        left = cursor.node(name, left, _read_ratio(cursor))


def _read_ratio(cursor: Cursor) -> Node:
    """`3:4` is a ratio or a time of day; which one is settled when comparing."""
    first = _read_quantity(cursor)
    parts = [first]
    while not cursor.bar_closes and cursor.at("op", ":"):
        cursor.take()
        parts.append(_read_quantity(cursor))
    if len(parts) == 1:
        return first
    last = parts[-1]
    if last.op == "unit" and first.op != "unit":  # 3:30 p.m.
        ratio = cursor.node("ratio", *parts[:-1], last.args[0])
        return cursor.node("unit", ratio, value=last.value)
    if first.op == "unit" and first.value in ("a.m.", "p.m."):
        ratio = cursor.node("ratio", first.args[0], *parts[1:])
        return cursor.node("unit", ratio, value=first.value)
    return cursor.node("ratio", *parts)


# Values with units, and words


def _read_quantity(cursor: Cursor) -> Node:
    negative = cursor.at("op", "-") and cursor.at("money", offset=1)
    if negative:
        cursor.take()
    if cursor.at("money"):
        return _read_money(cursor, negative=negative)
    if cursor.at("text"):
        return _read_text_first(cursor)
    return _read_units(cursor, read_sum(cursor))


def _read_money(cursor: Cursor, *, negative: bool) -> Node:
    unit = units.currency(cursor.take().text)
    value = read_sum(cursor)
    if negative:
        value = cursor.node("neg", value)
    if cursor.at("text"):
        found, factor = units.read_unit(_take_phrase(cursor))
        if found not in ("", unit):
            unit = f"{unit} {found}"
        value = _scaled(cursor, value, factor)
    return cursor.node("unit", value, value=unit)


def _scaled(cursor: Cursor, value: Node, factor: int) -> Node:
    return value if factor == 1 else cursor.node("mul", value, number(factor))


def _read_units(cursor: Cursor, value: Node) -> Node:
    """Read the unit after a value; several values with units, as in `5 feet 3 inches`, stay."""
    if cursor.accept("op", "%"):
        return cursor.node("unit", value, value="%")
    if cursor.at("money"):  # 30 $
        return cursor.node("unit", value, value=units.currency(cursor.take().text))
    if not cursor.at("text") or units.words_of(cursor.peek().text) in ("and", "or"):
        return value
    unit, factor = units.read_unit(_take_phrase(cursor))
    value = _scaled(cursor, value, factor)
    if unit:
        value = cursor.node("unit", value, value=unit)
    if cursor.at("number"):
        return cursor.node("compound", value, _read_units(cursor, read_sum(cursor)))
    return value


def _take_phrase(cursor: Cursor) -> str:
    r"""Take words with what stands between them: `\text{cm}^2`, `\text{m}/\text{s}`."""
    parts: list[str] = []
    while True:
        if cursor.at("text") and units.words_of(cursor.peek().text) not in ("and", "or"):
            parts.append(" " + cursor.take().text.strip())
        elif cursor.at("op", "^") and cursor.at("number", offset=1):
            cursor.take()
            parts.append("^" + cursor.take().text)
        elif cursor.at("op", "^") and cursor.at("op", "{", offset=1):
            parts.append("^" + _take_braced_power(cursor))
        elif cursor.at("op", "/") and cursor.at("text", offset=1):
            cursor.take()
            parts.append("/")
        else:
            return "".join(parts).strip()


def _take_braced_power(cursor: Cursor) -> str:
    cursor.take()
    cursor.expect("op", "{")
    power = cursor.expect("number").text if cursor.at("number") else ""
    cursor.expect("op", "}")
    return power


def _read_text_first(cursor: Cursor) -> Node:
    """Words alone, a choice letter before a value, or a leading unit."""
    start = cursor.peek().text
    if len(start.strip()) == 1 and not _phrase_is_alone(cursor):
        return _read_units(cursor, read_sum(cursor))
    phrase = _take_words(cursor)
    words = units.words_of(phrase)
    if words in _ANNOUNCEMENTS:
        cursor.accept("op", ":")
    if _at_statement_end(cursor):
        return cursor.node("text", value=words)
    choice = _CHOICE.fullmatch(phrase.strip())
    if choice:
        label = choice[1] or choice[2]
        return cursor.node("choice", _read_quantity(cursor), value=label)
    if words in _ANNOUNCEMENTS:
        return _read_quantity(cursor)
    unit, factor = units.read_unit(phrase)
    if unit not in units.LEADING_UNITS or factor != 1:
        raise UnreadableError(f"{phrase!r} before a value")
    return cursor.node("unit", _read_units(cursor, read_sum(cursor)), value=unit)


def _phrase_is_alone(cursor: Cursor) -> bool:
    return cursor.peek(1).kind in ("end of answer", "text") or cursor.at("op", ",", offset=1)


def _take_words(cursor: Cursor) -> str:
    parts: list[str] = []
    while cursor.at("text") or (parts and cursor.at("letter") and cursor.at("text", offset=1)):
        if parts and units.words_of(cursor.peek().text) in ("and", "or"):
            break
        parts.append(cursor.take().text.strip())
    return " ".join(parts)


def _at_statement_end(cursor: Cursor) -> bool:
    return (
        cursor.at_end()
        or cursor.at_relation()
        or cursor.at("op", ",", ";", ")", "]", "}", "\\}", "&", ":")
        or cursor.at("text")
        or cursor.at("macro", "lor", "land")
    )
