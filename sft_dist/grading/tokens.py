r"""Cut an answer, in LaTeX or in plain text, into tokens.

What only changes the look (`\left`, `\,`, `\displaystyle`, fonts, `$`) makes no token. Nothing else
is dropped: an unknown macro is a token, and the parser refuses it.
"""

import re
from fractions import Fraction

from sft_dist.grading import groups, vocabulary
from sft_dist.grading.answer_token import Token
from sft_dist.grading.characters import fold
from sft_dist.grading.limits import MAX_CHARS, MAX_TEXT_DEPTH, OverLimitError, UnreadableError
from sft_dist.grading.numerals import scan_number
from sft_dist.grading.plain_names import read_run, read_text

_MACRO = re.compile(r"\\(?:([A-Za-z]+)\*?\s*|(.))", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
_OPERATORS = re.compile(r"<=|>=|==|=<|=>|->|\*\*|\+/-|\+-|\.\.\.+|!=|[-+*/^_{}()\[\]|!<>=,;:'&.%]")
_SPELLED = {"**": "^", "+/-": "pm", "+-": "pm", "->": "to", "≠": "ne"}
_OPERAND = re.compile(r"\s*(?:[\w(]|\\[A-Za-z])")
_SPACES = re.compile(r"[\s~]+")
_CURRENCY = "€£¥₹"


def tokenize(text: str) -> list[Token]:
    """Return the tokens of an answer.

    Raises:
        OverLimitError: The text or a number in it is too long.
        UnreadableError: A brace is missing or a character has no meaning here.
    """
    if len(text) > MAX_CHARS:
        raise OverLimitError(f"an answer of {len(text)} characters")
    return _Scanner(fold(text)).scan()


class _Scanner:
    def __init__(self, text: str, depth: int = 0) -> None:
        if depth > MAX_TEXT_DEPTH:
            raise OverLimitError("text macros nested too deep")
        self._depth = depth
        self._text = text
        self._position = 0
        self._tokens: list[Token] = []
        self._spaced = False
        self._num_brackets = 0
        self._loose_commas = re.search(r",(?:\s|\\[ ;:,]|~)", text) is not None
        self._dollars_are_money = text.replace("\\$", "").count("$") % 2 == 1

    def scan(self) -> list[Token]:
        while self._position < len(self._text):
            self._step()
        return self._tokens

    def _step(self) -> None:
        char = self._text[self._position]
        spaces = _SPACES.match(self._text, self._position)
        if spaces:
            self._position, self._spaced = spaces.end(), True
        elif char == "\\":
            self._macro()
        elif char.isdigit() or (char == "." and self._text[self._position + 1 :][:1].isdigit()):
            self._number()
        elif char.isalpha():
            self._word()
        elif char == "$":
            self._position += 1
            if self._dollars_are_money and self._text[self._position :].lstrip()[:1].isdigit():
                self._emit("money", "dollar")
        elif self._num_brackets and self._text.startswith("{,}", self._position):
            self._position += 3
            self._emit("op", ",")
        else:
            self._operator()

    def _emit(
        self, kind: str, text: str, value: Fraction | None = None, *, bold: bool = False
    ) -> None:
        self._tokens.append(Token(kind, text, self._spaced, value, bold))
        self._spaced = False

    def _number(self) -> None:
        tight = self._num_brackets > 0 and not self._loose_commas
        found = scan_number(self._text, self._position, in_brackets=tight)
        if found is None:  # a digit of another script
            raise UnreadableError(f"character {self._text[self._position]!r}")
        value, digits, self._position = found
        self._emit("number", digits, value)

    def _operator(self) -> None:
        match = _OPERATORS.match(self._text, self._position)
        char = self._text[self._position]
        if match is None:
            if char not in _CURRENCY:
                raise UnreadableError(f"character {char!r}")
            self._position += 1
            self._emit("money", char)
            return
        self._position = match.end()
        operator = match.group()
        if operator == "!=":  # `5!=120` is a factorial
            if self._tokens and self._tokens[-1].kind == "number" and not self._spaced:
                raise UnreadableError("'!=' directly after a number")
            self._emit("macro", "ne")
        elif operator.startswith("..."):
            self._emit("macro", "ldots")
        elif operator in _SPELLED and operator != "**":
            self._emit("macro", _SPELLED[operator])
        else:
            self._bracket(operator)
            self._emit("op", _SPELLED.get(operator, operator))

    def _bracket(self, operator: str) -> None:
        if operator in ("(", "[", "\\{"):
            self._num_brackets += 1
        elif operator in (")", "]", "\\}"):
            self._num_brackets = max(0, self._num_brackets - 1)

    def _word(self) -> None:
        """Letters of plain text: known names, words, or single mathematical letters."""
        match = _WORD.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        after_number = self._after_number()
        for kind, text in read_run(
            match.group(),
            ends_number=after_number and _OPERAND.match(self._text, self._position) is None,
            after_number=after_number,
            before_brace=self._at("{"),
        ):
            self._emit(kind, text)

    def _macro(self) -> None:
        match = _MACRO.match(self._text, self._position)
        if match is None:
            raise UnreadableError("a backslash at the end")
        self._position = match.end()
        if match[2] is not None:
            self._control_symbol(match[2])
            return
        name = vocabulary.SUBSTITUTED.get(match[1], match[1])
        if name in vocabulary.TEXTS and self._at("{"):
            self._text_macro(self._braced(), name)
        elif name in vocabulary.SWALLOWED_MACROS:
            self._swallow()
        elif name in ("begin", "end"):
            self._environment(name)
        elif name in vocabulary.ALPHABETS:
            self._alphabet(name)
        elif not name[0].isalpha():
            self._bracket(name)
            self._emit("op", name)
        else:
            self._layout_or_macro(name)

    def _layout_or_macro(self, name: str) -> None:
        if name in ("left", "right", "middle"):
            self._skip_null_delimiter(name)
        elif name in ("color", "textcolor"):
            self._braced()
        elif name == "deg" and self._after_number():
            self._emit("macro", "degree")
        elif name in vocabulary.BOLD_FONTS:
            self._bold()
        elif name == "frac" and self._after_number():
            self._fraction()
        elif name not in vocabulary.IGNORED_MACROS and name not in vocabulary.FONTS:
            self._emit("macro", name)

    def _control_symbol(self, char: str) -> None:
        if char in ",;:! >\n\t":
            self._spaced = self._spaced or char not in "!,"
        elif char in "{}|":
            self._bracket("\\" + char)
            self._emit("op", "\\" + char)
        elif char == "\\":
            self._position = groups.skip_row_gap(self._text, self._position)
            self._emit("row", "\\\\")
        elif char == "%":
            self._emit("op", "%")
        elif char == "$":
            self._emit("money", "dollar")
        elif char not in "()[]":
            raise UnreadableError(f"macro \\{char}")

    def _at(self, char: str) -> bool:
        return self._text.startswith(char, self._position)

    def _bold(self) -> None:
        """Mark bold letters, whose products keep their order; a bold 42 is a plain one."""
        letters, self._position = groups.bold_letters(self._text, self._position)
        pieces = [(kind, text, kind == "letter") for kind, text in read_run(letters)]
        if len(pieces) > 1:
            pieces = [("op", "{", False), *pieces, ("op", "}", False)]
        for kind, text, bold in pieces if letters else ():
            self._emit(kind, text, bold=bold)

    def _fraction(self) -> None:
        unit, self._position = groups.unit_fraction(self._text, self._position)
        self._emit("text" if unit else "macro", unit or "frac")

    def _skip_null_delimiter(self, name: str) -> None:
        if self._at("."):
            self._position += 1
        elif self._at("<") or self._at(">"):
            self._position += 1
            self._emit("macro", "langle" if name == "left" else "rangle")

    def _swallow(self) -> None:
        """Step over an argument that is not shown."""
        self._spaced = True
        if self._at("{"):
            self._braced()
        else:
            self._position += 1

    def _braced(self) -> str:
        """Take a group in braces and return what is in it."""
        content, self._position = groups.braced(self._text, self._position)
        return content

    def _text_macro(self, content: str, name: str) -> None:
        if name in ("mathrm", "rm") and content.strip() in ("i", "e"):
            self._emit("letter", content.strip())  # the constants, set upright
            return
        upright = name in vocabulary.UPRIGHT and not self._after_number()
        for kind, text in read_text(content, upright=upright):
            if kind == "mathematics":
                if name == "operatorname":
                    raise UnreadableError(f"operator {content!r}")
                self._tokens.extend(_Scanner(text, self._depth + 1).scan())
            else:
                self._spaced = True
                self._emit(kind, text)

    def _after_number(self) -> bool:
        return bool(self._tokens) and self._tokens[-1].kind == "number"

    def _environment(self, name: str) -> None:
        environment, self._position = groups.environment_name(self._text, self._position)
        self._emit(name, environment)

    def _alphabet(self, name: str) -> None:
        letter, self._position = groups.one_letter(self._text, self._position)
        self._emit("letter", f"{name} {letter}")
