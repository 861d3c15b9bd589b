"""Groups that the scanner cuts from the raw text: arguments in braces, bold letters, units."""

import re

from sft_dist.grading.limits import UnreadableError

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_ENVIRONMENT = re.compile(r"\{\s*([A-Za-z]+\*?)\s*\}(\{[lcr|\s]*\})?")
_BOLD = re.compile(r"\{\s*([A-Za-z]{1,3})\s*\}|([A-Za-z])(?![A-Za-z])")
_UNIT = r"\{\s*\\(?:text|textrm|mathrm|mbox|rm)\s*\{\s*([A-Za-z. ]+?)\s*\}\s*\}"
_UNIT_FRACTION = re.compile(_UNIT + r"\s*" + _UNIT)
_ROW_GAP = re.compile(r"\[\s*-?\d*\.?\d+\s*(?:pt|em|ex|mm|cm|in|mu)\s*\]")


def braced(text: str, position: int) -> tuple[str, int]:
    """Return what is in the group in braces at `position`, and the place after it.

    Raises:
        UnreadableError: No group begins there, or it is never closed.
    """
    if not text.startswith("{", position):
        raise UnreadableError("a macro without its argument")
    depth = 0
    for match in _BRACE.finditer(text, position):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[position + 1 : match.start()], match.end()
    raise UnreadableError("a brace that is never closed")


def environment_name(text: str, position: int) -> tuple[str, int]:
    r"""Return the name after `\begin` or `\end`; the columns of an array are stepped over."""
    match = _ENVIRONMENT.match(text, position)
    if match is None:
        raise UnreadableError("an environment without a name")
    return match[1], match.end()


def one_letter(text: str, position: int) -> tuple[str, int]:
    r"""Return the letter that an alphabet such as `\mathbb` applies to, with or without braces."""
    if text.startswith("{", position):
        letter, end = braced(text, position)
    else:
        letter, end = text[position : position + 1], position + 1
    letter = letter.strip()
    if not letter.isalpha() or len(letter) != 1:
        raise UnreadableError(f"an alphabet of {letter!r}")
    return letter, end


def bold_letters(text: str, position: int) -> tuple[str, int]:
    """Return the letters that a bold macro applies to; none where it sets more than names."""
    match = _BOLD.match(text, position)
    return (match[1] or match[2], match.end()) if match else ("", position)


def unit_fraction(text: str, position: int) -> tuple[str, int]:
    r"""Return `km/h` for the arguments of `\frac{\text{km}}{\text{h}}`, else no unit."""
    match = _UNIT_FRACTION.match(text, position)
    return (f"{match[1]}/{match[2]}", match.end()) if match else ("", position)


def skip_row_gap(text: str, position: int) -> int:
    r"""Return the place after the extra space of a row, as in `\\[4pt]`."""
    match = _ROW_GAP.match(text, position)
    return match.end() if match else position
