r"""Number literals: thousands separators, decimals, repeating decimals, numbers in words.

`1,234`, `1{,}234`, `1,\!234`, `1\,234` and `1 234` are one number. Inside brackets a bare comma
separates items, as in `(100,101)`, unless other commas there are followed by a space.
"""

import re
from fractions import Fraction

from sft_dist.grading.limits import MAX_DIGITS, OverLimitError, UnreadableError

_STRONG = r"\d{1,3}(?:(?:\{,\}|\{,\\!\}|,\s?\\!|\\!|\\,|\\ |\\:|\\;)\s?\d{3})+(?!\d)"
_SPACED = r"[1-9]\d{0,2}(?: \d{3})+(?!\d|\s*/|,\d|\s*\\frac)"
_COMMAS = r"[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?!,\d)"
_GROUPED = re.compile(rf"(?P<whole>{_STRONG}|{_SPACED}|{_COMMAS})(?P<rest>\.\d+)?")
_GROUPED_IN_BRACKETS = re.compile(rf"(?P<whole>{_STRONG}|{_SPACED})(?P<rest>\.\d+)?")
_PLAIN = re.compile(r"(?P<whole>\d+)(?P<rest>\.\d+|\.(?=\s*\\(?:overline|bar|dot)|\(\d+\)))?")
_LEADING_POINT = re.compile(r"(?P<whole>)(?P<rest>\.\d+|\.(?=\s*\\(?:overline|bar|dot)))")
_REPEATING = re.compile(
    r"\s*\\(?:overline|bar)\s*\{\s*(?P<line>\d+)\s*\}"
    r"|\s*\\(?:overline|bar)\s*(?P<digit>\d)"
    r"|(?P<dots>\s*\\dot\s*\{?\d\}?(?:\d*\\dot\s*\{?\d\}?)?)"
    r"|(?<=\.)\((?P<plain>\d+)\)"
)
_EXPONENT = re.compile(r"[eE]([-+]?\d{1,4})(?![\dA-Za-z.])")
_BARE_EXPONENT = re.compile(r"[eE](\d{1,3})(?![\dA-Za-z.,^_!])")
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
           "trillion": 10**12, "dozen": 12}  # fmt: skip
_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_PARTS = {"half": 2, "third": 3, "fourth": 4, "quarter": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10}  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}


def scan_number(text: str, position: int, *, in_brackets: bool) -> tuple[Fraction, str, int] | None:
    """Read the number literal at `position`: its value, its digits without separators, and its end.

    Raises:
        OverLimitError: It has too many digits.
    """
    grouped = _GROUPED_IN_BRACKETS if in_brackets else _GROUPED
    match = (
        grouped.match(text, position)
        or _PLAIN.match(text, position)
        or _LEADING_POINT.match(text, position)
    )
    if match is None:
        return None
    whole = re.sub(r"\D", "", match["whole"])
    decimals = (match["rest"] or ".")[1:]
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise OverLimitError("a number has too many digits")
    written = end = match.end()
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    if match["rest"] is not None:
        value, end = _add_repeating(text, end, value, len(decimals))
    value, end = _scale(text, end, value, _BARE_EXPONENT if match["rest"] is None else _EXPONENT)
    digits = whole + ("." + decimals if match["rest"] else "")
    return value, digits + text[written:end], end


def _add_repeating(text: str, end: int, value: Fraction, num_decimals: int) -> tuple[Fraction, int]:
    match = _REPEATING.match(text, end)
    if match is None:
        if text[end - 1] == ".":
            raise UnreadableError("a decimal point without digits")
        return value, end
    period = match["line"] or match["digit"] or match["plain"]
    period = period or re.sub(r"\D", "", match["dots"])
    if len(period) > 200:
        raise OverLimitError("a repeating decimal has too long a period")
    return value + Fraction(int(period), (10 ** len(period) - 1) * 10**num_decimals), match.end()


def _scale(text: str, end: int, value: Fraction, exponent: re.Pattern[str]) -> tuple[Fraction, int]:
    """`1.5e-7`, `1e5`; signed only after a decimal point: `2e-3` may mean Euler's number."""
    match = exponent.match(text, end)
    if match is None or abs(int(match[1])) > MAX_DIGITS:
        return value, end
    return value * Fraction(10) ** int(match[1]), match.end()


def scale_word(word: str) -> int | None:
    """Return what `million` and its like multiply by."""
    return _SCALES.get(word) or (_SCALES.get(word[:-1]) if word.endswith("s") else None)


def fraction_in_words(words: str) -> Fraction | None:
    """Return the value of `one half` or `two thirds`, None for other words."""
    parts = words.lower().replace("-", " ").split()
    if len(parts) != 2:
        return None
    top, bottom = _WORDS.get(parts[0]), _PARTS.get(parts[1].removesuffix("s"))
    if parts[1] == "halves":
        bottom = 2
    return Fraction(top, bottom) if top and bottom else None


def number_in_words(words: str) -> int | None:
    """Return the value of `four`, `twenty-one` or `two thousand ten`, None for other words."""
    total, group, last_scale = 0, 0, 10**15
    parts = words.lower().replace("-", " ").split()
    if not parts or parts[0] not in _WORDS:
        return None
    for part in parts:
        scale = _SCALES.get(part, 0)
        if part in _WORDS and (parts == ["zero"] or _fits(group, _WORDS[part])):
            group += _WORDS[part]
        elif part == "hundred" and 0 < group < 10:
            group *= 100
        elif scale >= 1000 and group > 0 and scale < last_scale:
            total, group, last_scale = total + group * scale, 0, scale
        else:
            return None
    return total + group


def _fits(group: int, value: int) -> bool:
    """True if a word of this value may follow what was read: `twenty`, then `one`."""
    if group % 100 >= 20 and group % 10 == 0:
        return 0 < value < 10
    return group % 100 == 0 and value > 0
