"""The place in the token list where the parser stands, and the limits on what it builds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sft_dist.grading import vocabulary
from sft_dist.grading.answer_token import Token
from sft_dist.grading.limits import MAX_DEPTH, MAX_NODES, OverLimitError, UnreadableError
from sft_dist.grading.tree import Node

_END = Token("end of answer", "")
_RELATIONS = set(vocabulary.RELATIONS)
_NOT_FACTORS = (
    _RELATIONS
    | vocabulary.MULTIPLICATIONS
    | vocabulary.DIVISIONS
    | {"pm", "mp", "cup", "cap", "setminus", "lor", "land", "choose", "over", "rfloor", "rceil"}
    | {"rangle", "pmod", "bmod", "mod", "not", "prime", "circ", "degree", "neg"}
)
_OPENERS = ("(", "[", "{", "\\{")


@dataclass(frozen=True)
class Grammar:
    """The parser's entry points, for the modules below the one that defines them."""

    read_list: Callable[["Cursor"], Node]
    read_sum: Callable[["Cursor"], Node]
    read_product: Callable[["Cursor"], Node]
    read_factor: Callable[["Cursor"], Node]
    read_atom: Callable[["Cursor"], Node]


class Cursor:
    """A position in `tokens`, with the `grammar` that brackets and arguments are read by."""

    def __init__(self, tokens: list[Token], grammar: Grammar) -> None:
        self._tokens = list(tokens)
        self._position = 0
        self._num_nodes = 0
        self._depth = 0
        self.grammar = grammar
        self.bar_closes = False  # inside |...| and {x | ...} a bar ends what is being read
        self.bound_names: set[str] = set()  # of sums: `i` is a letter there

    def node(self, op: str, *args: Node, value: Any = None) -> Node:
        """Make a node, counted against the limit."""
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise OverLimitError("an answer with too many parts")
        return Node(op, args, value)

    def peek(self, offset: int = 0) -> Token:
        """Return the next token, or one further on, without taking it."""
        index = self._position + offset
        return self._tokens[index] if index < len(self._tokens) else _END

    def take(self) -> Token:
        """Return the next token and step over it."""
        token = self.peek()
        self._position += 1
        return token

    @property
    def position(self) -> int:
        """The index of the next token."""
        return self._position

    def any_bold_since(self, start: int) -> bool:
        """True if a token taken from `start` on was set in bold."""
        return any(token.bold for token in self._tokens[start : self._position])

    def push_back(self, token: Token) -> None:
        """Put `token` in front of the next one."""
        self._position -= 1
        self._tokens[self._position] = token

    def at_end(self) -> bool:
        """True after the last token."""
        return self._position >= len(self._tokens)

    def at(self, kind: str, *texts: str, offset: int = 0) -> bool:
        """True if the next token is of that kind and is one of the texts (any without texts)."""
        token = self.peek(offset)
        return token.kind == kind and (not texts or token.text in texts)

    def accept(self, kind: str, *texts: str) -> bool:
        """Step over the next token if it is one of these."""
        if self.at(kind, *texts):
            self._position += 1
            return True
        return False

    def expect(self, kind: str, *texts: str) -> Token:
        """Take the next token, which must be one of these.

        Raises:
            UnreadableError: It is another.
        """
        if not self.at(kind, *texts):
            raise UnreadableError(f"expected {' or '.join(texts)}, found {self.peek().text!r}")
        return self.take()

    def at_operator(self, names: set[str]) -> bool:
        """True at one of these operators, spelled as a character or as a macro."""
        return self.peek().kind in ("op", "macro") and self.peek().text in names

    def at_relation(self) -> bool:
        """True at a relation sign; the bar of `{x | x > 2}` is none."""
        if self.bar_closes and self.at("macro", "mid"):
            return False
        return self.at_operator(_RELATIONS) or self.at("macro", "not")

    def at_factor(self) -> bool:
        """True if the next token begins another factor of a product."""
        token = self.peek()
        match token.kind:
            case "number" | "letter" | "begin":
                return True
            case "macro":
                return token.text not in _NOT_FACTORS
            case "op":
                bar_opens = token.text in ("|", "\\|") and not self.bar_closes
                return token.text in _OPENERS or bar_opens
        return False

    @contextmanager
    def nested(self, *, bar_closes: bool = False) -> Iterator[None]:
        """Count one level of brackets.

        Raises:
            OverLimitError: Too many levels.
        """
        before = self.bar_closes
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise OverLimitError("brackets nested too deep")
        self.bar_closes = bar_closes
        yield
        self.bar_closes = before
        self._depth -= 1

    def read_list(self, *, bar_closes: bool = False) -> Node:
        """Read what may stand in brackets: statements separated by commas."""
        with self.nested(bar_closes=bar_closes):
            return self.grammar.read_list(self)

    def read_sum(self, *, bar_closes: bool = False) -> Node:
        """Read an expression in brackets."""
        with self.nested(bar_closes=bar_closes):
            return self.grammar.read_sum(self)
