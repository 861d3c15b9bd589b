r"""Cut an answer, in LaTeX or in plain text, into tokens.

What only changes the look (`\left`, `\,`, `\displaystyle`, fonts, `$`) makes no token. Nothing else
is dropped: an unknown macro is a token, and the parser refuses it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from sft_dist.grading import vocabulary
from sft_dist.grading.characters import fold
from sft_dist.grading.limits import MAX_CHARS, MAX_TEXT_DEPTH, OverLimitError, UnreadableError
from sft_dist.grading.numerals import scan_number

_MACRO = re.compile(r"\\(?:([A-Za-z]+)\*?\s*|(.))", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
_ENVIRONMENT = re.compile(r"\{\s*([A-Za-z]+\*?)\s*\}(\{[lcr|\s]*\})?")
_OPERATORS = re.compile(r"<=|>=|==|=<|=>|->|\*\*|\+/-|\+-|\.\.\.+|!=|[-+*/^_{}()\[\]|!<>=,;:'&.%]")
_SPELLED = {"**": "^", "+/-": "pm", "+-": "pm", "->": "to", "≠": "ne"}
_SPACES = re.compile(r"[\s~]+")
_CURRENCY = "€£¥₹"
_SEPARATORS = re.compile(r"([,;]|\b(?:and|or)\b)", re.IGNORECASE)
_HALF_OF_DAY = re.compile(r"(?<![A-Za-z\\])([aApP])\.\s*[mM]\b\.?")
_HAS_MATHEMATICS = re.compile(r"[\d=+^$\\]")


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, letter, text, macro, op, begin, end, row or money.

    `spaced` says that white space stands before it. Two tokens are the same token when kind and
    text are.
    """

    kind: str
    text: str
    spaced: bool = False
    value: Fraction | None = None


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
        self._text = _HALF_OF_DAY.sub(r"\1m ", text)
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
        else:
            self._operator()

    def _emit(self, kind: str, text: str, value: Fraction | None = None) -> None:
        self._tokens.append(Token(kind, text, self._spaced, value))
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
        self._letters(match.group())

    def _letters(self, run: str) -> None:
        name = vocabulary.ALIASES.get(run, run)
        if len(run) == 1:
            self._emit("letter", run)
        elif run == "in":
            self._emit("text" if self._after_number() else "macro", "in")
        elif run in vocabulary.ALSO_UNITS and self._after_number() and not self._at_operand():
            self._emit("text", run)
        elif name in vocabulary.PLAIN_CONSTANTS:
            self._emit("macro", vocabulary.PLAIN_CONSTANTS[name])
        elif run in ("frac", "dfrac", "tfrac") and self._at("{"):
            self._emit("macro", "frac")
        elif name.lower() in ("infinity", "sqrt"):
            self._emit("macro", {"infinity": "infty", "sqrt": "usqrt"}[name.lower()])
        elif name in vocabulary.FUNCTIONS or name in vocabulary.GREEK:
            self._emit("macro", {"sqrt": "usqrt", "cbrt": "ucbrt"}.get(name, name))
        elif run in vocabulary.SHORT_WORDS or not self._split_run(run):
            self._emit("text", run)

    def _at_operand(self) -> bool:
        return (
            re.match(r"\s*(?:[\w(]|\\[A-Za-z])", self._text[self._position : self._position + 9])
            is not None
        )

    def _split_run(self, run: str) -> bool:
        """`xy`, `sinx`, `pir`: letters and at most one known name; False for a word."""
        for name in ("sqrt", "sin", "cos", "tan", "log", "ln", "pi"):
            rest = run.removeprefix(name)
            if rest != run and len(rest) == 1:
                self._letters(name)
                self._emit("letter", rest)
                return True
            rest = run.removesuffix(name)
            if rest != run and len(rest) <= (2 if name in ("sqrt", "pi") else 1):
                for letter in rest:
                    self._emit("letter", letter)
                self._letters(name)
                return True
        if len(run) > 3 or not run.isascii():
            return False
        for letter in run:
            self._emit("letter", letter)
        return True

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
        elif name not in vocabulary.IGNORED_MACROS and name not in vocabulary.FONTS:
            self._emit("macro", name)

    def _control_symbol(self, char: str) -> None:
        if char in ",;:! >\n\t":
            self._spaced = self._spaced or char not in "!,"
        elif char in "{}|":
            self._bracket("\\" + char)
            self._emit("op", "\\" + char)
        elif char == "\\":
            self._emit("row", "\\\\")
        elif char == "%":
            self._emit("op", "%")
        elif char == "$":
            self._emit("money", "dollar")
        elif char not in "()[]":
            raise UnreadableError(f"macro \\{char}")

    def _at(self, char: str) -> bool:
        return self._text.startswith(char, self._position)

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
        if not self._at("{"):
            raise UnreadableError("a macro without its argument")
        depth, start = 0, self._position + 1
        for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(self._text, self._position):
            depth += {"{": 1, "}": -1}.get(match.group(), 0)
            if depth == 0:
                self._position = match.end()
                return self._text[start : match.start()]
        raise UnreadableError("a brace that is never closed")

    def _text_macro(self, content: str, name: str) -> None:
        words = content.replace("~", " ").replace("\\ ", " ").replace("\\,", " ").strip()
        plain = vocabulary.ALIASES.get(words, words)
        upright = name in ("operatorname", "mathrm") and not self._after_number()
        if plain in vocabulary.FUNCTIONS and (upright or plain not in vocabulary.ALSO_UNITS):
            self._emit("macro", {"sqrt": "usqrt", "cbrt": "ucbrt"}.get(plain, plain))
        elif _HAS_MATHEMATICS.search(words):
            self._inline(words, name)
        elif words and not any(char.isalnum() for char in words):
            self._inline(words, name)
        elif words:
            self._words(words)

    def _words(self, words: str) -> None:
        """Words; commas between them separate items as they do outside."""
        for part in _SEPARATORS.split(words):
            self._spaced = True
            if part in (",", ";"):
                self._emit("op", part)
            elif part.strip():
                self._emit("text", part.strip())

    def _inline(self, content: str, name: str) -> None:
        r"""Mathematics in a text macro, as in `\text{5}`."""
        if name == "operatorname":
            raise UnreadableError(f"operator {content!r}")
        self._tokens.extend(_Scanner(content, self._depth + 1).scan())

    def _after_number(self) -> bool:
        return bool(self._tokens) and self._tokens[-1].kind == "number"

    def _environment(self, name: str) -> None:
        match = _ENVIRONMENT.match(self._text, self._position)
        if match is None:
            raise UnreadableError("an environment without a name")
        self._position = match.end()
        self._emit(name, match[1])

    def _alphabet(self, name: str) -> None:
        if self._at("{"):
            letter = self._braced()
        else:
            letter = self._text[self._position : self._position + 1]
            self._position += 1
        if not letter.strip().isalpha() or len(letter.strip()) != 1:
            raise UnreadableError(f"\\{name} of {letter!r}")
        kind = "mathbb" if name in ("mathbb", "Bbb") else name
        self._emit("letter", f"{kind} {letter.strip()}")
