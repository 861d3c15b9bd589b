"""Grammar of values with units, money, and words."""

import re

from sft_dist.grading import units
from sft_dist.grading.cursor import Cursor
from sft_dist.grading.limits import UnreadableError
from sft_dist.grading.tree import Node, number

_WORDED_CHOICE = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.:)])\s*([A-Za-z].+)")
_CHOICE = re.compile(r"\(([A-Z])\)[.:]?|([A-Z])[.):]")
_ANNOUNCEMENTS = {"answer", "the answer", "the answer is", "answer is", "final answer",
                  "the final answer is", "final answer is", "approximately", "about"}  # fmt: skip


def read_quantity(cursor: Cursor) -> Node:
    """Read a value with its unit, an amount of money, or words."""
    negative = cursor.at("op", "-") and cursor.at("money", offset=1)
    if negative:
        cursor.take()
    if cursor.at("money"):
        return _read_money(cursor, negative=negative)
    if cursor.at("text"):
        return _read_text_first(cursor)
    return _read_units(cursor, cursor.grammar.read_sum(cursor))


def _read_money(cursor: Cursor, *, negative: bool) -> Node:
    unit = units.currency(cursor.take().text)
    value = cursor.grammar.read_sum(cursor)
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
        return cursor.node("compound", value, _read_units(cursor, cursor.grammar.read_sum(cursor)))
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
        return _read_units(cursor, cursor.grammar.read_sum(cursor))
    phrase = _take_words(cursor)
    words = units.words_of(phrase)
    if words in _ANNOUNCEMENTS:
        cursor.accept("op", ":")
    if _at_statement_end(cursor):
        worded = _WORDED_CHOICE.fullmatch(phrase.strip())
        if worded:
            value = cursor.node("text", value=units.words_of(worded[3]))
            return cursor.node("choice", value, value=worded[1] or worded[2])
        return cursor.node("text", value=words)
    choice = _CHOICE.fullmatch(phrase.strip())
    if choice:
        label = choice[1] or choice[2]
        return cursor.node("choice", read_quantity(cursor), value=label)
    if words in _ANNOUNCEMENTS:
        return read_quantity(cursor)
    unit, factor = units.read_unit(phrase)
    if unit not in units.LEADING_UNITS or factor != 1:
        raise UnreadableError(f"{phrase!r} before a value")
    return cursor.node("unit", _read_units(cursor, cursor.grammar.read_sum(cursor)), value=unit)


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
