r"""Find the text that a response gives as its answer: a `\boxed{}` or an `<answer>` tag.

One pass over the text, so a hostile response costs time linear in its length. What stands outside
the box or the tag is never looked at.
"""

import re

_SCAN = re.compile(  # a run of backslashes is stepped over at once, or long runs cost their square
    r"(?P<box>\\++(?:boxed|fbox)(?![A-Za-z]))|(?:\\\\)++|\\.|[{}]", re.DOTALL
)
_OPENING_BRACE = re.compile(r"\s*\{")
_UNBRACED = re.compile(r"\s*(?=[^\s{}$])(?P<math>[^${}\n]*)(?=\$|\\\)|\\\])")
_UNBRACED_TOKEN = re.compile(r"\s*(?P<token>[-+]?\d[\d,]*(?:\.\d+)?|[A-Za-z](?![A-Za-z]))")
_PROSE = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}")
_TOLERANT_ANSWER = re.compile(r"</think>\s*<answer>")
_MAX_NESTED_BOXES = 8  # each level costs one more pass
_STRICT_ANSWER = "</think> <answer>"


def extract_boxed(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{}` or `\fbox{}`, or None without one.

    Escaped braces (`\{`, `\left\{`) are text, not structure. `\boxed {x}` and `\boxed 5` count. A
    box that is never closed is not there. Of boxes in one another the outer one counts, unless it
    holds nothing but the inner one. An empty box is `""`.
    """
    content = _last_box(text)
    for _ in range(_MAX_NESTED_BOXES):
        if content is None:
            break
        inner = content.strip()
        match = _SCAN.match(inner)
        if match is None or not match.group("box"):
            break
        opening = _OPENING_BRACE.match(inner, match.end())
        if opening is None or _closing_brace(inner, opening.end()) != len(inner) - 1:
            break
        content = inner[opening.end() : -1]
    return content


def _last_box(text: str) -> str | None:
    found: tuple[int, int] | None = None
    open_braces: list[int] = []  # start of the content if the brace opens a box, else -1
    position = 0
    while match := _SCAN.search(text, position):
        position = match.end()
        if match.group("box"):
            opening = _OPENING_BRACE.match(text, position)
            if opening:
                position = opening.end()
                open_braces.append(position)
            else:
                found = _unbraced_box(text, position) or found
        elif match.group() == "{":
            open_braces.append(-1)
        elif match.group() == "}" and open_braces:
            start = open_braces.pop()
            if start >= 0:
                found = (start, match.start())
    return None if found is None else text[found[0] : found[1]]


def _unbraced_box(text: str, position: int) -> tuple[int, int] | None:
    r"""`\boxed 5`: up to the end of the formula on this line, else one number or letter."""
    window = text[position : position + 200]  # bounded: many boxes must not cost many long scans
    match = _UNBRACED.match(window)
    if match and not _PROSE.search(match["math"]):
        return position + match.start("math"), position + match.end("math")
    match = _UNBRACED_TOKEN.match(window)
    if match:
        return position + match.start("token"), position + match.end("token")
    return None


def _closing_brace(text: str, position: int) -> int:
    """Return the index of the brace that closes the one before `position`, or -1."""
    depth = 1
    for match in _SCAN.finditer(text, position):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return -1


def extract_answer_tag(text: str, *, strict: bool = False) -> str | None:
    """Return what stands in the last `<answer>` tag after `</think>`, or None without one.

    White space between `</think>` and `<answer>` is free. With `strict` the rule is the one of
    the r1_zero reference: the exact string `</think> <answer>` somewhere, `</answer>` somewhere,
    and the answer is everything after the last `<answer>`, closing tags removed.
    """
    if strict:
        if _STRICT_ANSWER not in text or "</answer>" not in text:
            return None
        return text.split("<answer>")[-1].replace("</answer>", "")
    opening = _TOLERANT_ANSWER.search(text)
    if opening is None:
        return None
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", opening.start(), max(end, 0))
    if start < 0:
        return None
    start += len("<answer>")
    return text[start : text.index("</answer>", start)]
