"""Makes, from a seed, arithmetic and algebra problems with worked solutions in MATH's format.

A problem dresses one *fact*: a sum of two two-digit numbers or a product of a one-digit and a
two-digit number. `37 + 48 = 85` is asked as a sum, as the difference `85 - 37`, as the equation
`x + 37 = 85` and in words. Facts, not problems, are divided between train and test: no dress of a
test problem's operands occurs in training, so a correct answer must have been computed.

The solutions work digit by digit, as taught at school: each step is small enough for a tiny model.
Not for benchmarks: these are no problems of MATH, only files of the same shape.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_ANSWER_SHARE = 0.05
"""Share of the test set that one answer may have: guessing the most frequent one must not pay."""

MAX_DRAWS_PER_PROBLEM = 4
"""Repetitions are drawn again; beyond this the facts are nearly used up."""

Record = dict[str, str]
"""One MATH file: `problem`, `level`, `type` and `solution`."""


@dataclass(frozen=True)
class Fact:
    """`first operator second = result`; a sum has its smaller operand first, so only one name."""

    operator: str
    first: int
    second: int

    @property
    def result(self) -> int:
        """The sum or the product."""
        return self.first + self.second if self.operator == "+" else self.first * self.second


@dataclass(frozen=True)
class Kind:
    """A way to ask for a fact; `{a}`, `{b}` in `phrases` are its operands, `{c}` its result."""

    subject: str
    operator: str
    inverse: bool  # asks for b from a and c, not for c from a and b
    phrases: tuple[str, ...]


KINDS = (
    Kind("Prealgebra", "+", False, ("What is ${a}+{b}$?", "Compute ${a}+{b}$.")),
    Kind("Prealgebra", "+", True, ("What is ${c}-{a}$?", "Compute ${c}-{a}$.")),
    Kind("Algebra", "+", False, ("Solve $x-{a}={b}$ for $x$.", "If $x-{a}={b}$, what is $x$?")),
    Kind("Algebra", "+", True, ("Solve $x+{a}={c}$ for $x$.", "If ${a}+x={c}$, what is $x$?")),
    Kind(
        "Counting & Probability",
        "+",
        False,
        ("A box holds ${a}$ red and ${b}$ blue balls. How many balls are in the box?",),
    ),
    Kind(
        "Counting & Probability",
        "+",
        True,
        ("Of ${c}$ balls in a box, ${a}$ are red and the others are blue. How many are blue?",),
    ),
    Kind("Prealgebra", "*", False, (r"What is ${a}\cdot{b}$?", r"Compute ${a}\cdot{b}$.")),
    Kind(
        "Geometry",
        "*",
        False,
        (
            "A rectangle has sides ${a}$ and ${b}$. What is its area?",
            "What is the area of a rectangle with sides ${a}$ and ${b}$?",
        ),
    ),
    Kind("Algebra", "*", True, ("Solve ${a}x={c}$ for $x$.", "If ${a}x={c}$, what is $x$?")),
)


def make_problems(
    seed: int, *, num_train: int, num_test: int, shuffle_answers: bool = False
) -> tuple[list[Record], list[Record]]:
    """Return train and test records; the same arguments give the same records.

    Args:
        seed: of everything drawn here.
        num_train: number of training records, all with different problem texts.
        num_test: number of test records, each of another fact.
        shuffle_answers: permute the solutions among the training records. The control of the demo:
            form and frequencies are kept, but nothing about a problem's answer can be learnt.

    Raises:
        ValueError: so many different problems cannot be made.
    """
    generator = random.Random(seed)
    facts = {operator: _facts(operator) for operator in "+*"}
    for group in facts.values():
        generator.shuffle(group)
    test = _draw_test(generator, facts, num_test)
    train = _draw_train(generator, facts, num_train)
    if shuffle_answers:
        solutions = [record["solution"] for record in train]
        generator.shuffle(solutions)
        train = [
            {**record, "solution": solution}
            for record, solution in zip(train, solutions, strict=True)
        ]
    return train, test


def write_math_directory(path: Path, train: Iterable[Record], *, test: Iterable[Record]) -> None:
    """Write `path/train/<subject>/<n>.json` and `path/test/...`, the layout of the original MATH.

    Numbers run from 1 within a subject. Raises FileExistsError when `path` has a split already:
    two sets of problems in one directory would leak into one another.
    """
    for split, records in (("train", train), ("test", test)):
        (path / split).mkdir(parents=True)
        counts: Counter[str] = Counter()
        for record in records:
            folder = record["type"].lower().replace("&", "and").replace(" ", "_")
            counts[folder] += 1
            file = path / split / folder / f"{counts[folder]}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(record, indent=4), encoding="utf-8")


def _facts(operator: str) -> list[Fact]:
    """All facts of one operator; no factor 2, as `2 * 34` would be `34 + 34` in another dress."""
    two_digits = range(10, 100)
    if operator == "+":
        return [Fact("+", a, b) for a in two_digits for b in two_digits if a <= b]
    return [Fact("*", a, b) for a in range(3, 10) for b in two_digits]


def _draw_test(
    generator: random.Random, facts: dict[str, list[Fact]], num_records: int
) -> list[Record]:
    """Take facts out of `facts`, ask for each once; no answer has more than MAX_ANSWER_SHARE."""
    limit = max(1, int(num_records * MAX_ANSWER_SHARE))
    answers: Counter[int] = Counter()
    records: list[Record] = []
    while len(records) < num_records:
        kind = generator.choice(KINDS)
        if not facts[kind.operator]:
            raise ValueError(
                f"num_test={num_records} needs more facts than there are; ask for fewer"
            )
        record, answer = _ask(generator, facts[kind.operator].pop(), kind=kind)
        if answers[answer] < limit:
            answers[answer] += 1
            records.append(record)
    return records


def _draw_train(
    generator: random.Random, facts: dict[str, list[Fact]], num_records: int
) -> list[Record]:
    """Ask for any of the facts that the test set left, never twice in the same words."""
    records: dict[str, Record] = {}
    num_draws = 0
    while len(records) < num_records:
        if num_draws == num_records * MAX_DRAWS_PER_PROBLEM:
            raise ValueError(
                f"num_train={num_records} needs more facts than are left; ask for fewer"
            )
        num_draws += 1
        kind = generator.choice(KINDS)
        if facts[kind.operator]:
            record, _ = _ask(generator, generator.choice(facts[kind.operator]), kind=kind)
            records.setdefault(record["problem"], record)
    return list(records.values())


def _ask(generator: random.Random, fact: Fact, *, kind: Kind) -> tuple[Record, int]:
    """Return one problem about a fact and its answer. The operands are shown in either order."""
    a, b = fact.first, fact.second
    if fact.operator == "+" and generator.random() < 0.5:
        a, b = b, a
    problem = generator.choice(kind.phrases).format(a=a, b=b, c=fact.result)
    work = _WORK[kind.operator, kind.inverse]
    steps, hard = work(fact.result, a) if kind.inverse else work(a, b)
    answer = b if kind.inverse else fact.result
    level = 1 + kind.inverse + hard + 2 * (kind.operator == "*")
    record = {
        "problem": problem,
        "level": f"Level {level}",
        "type": kind.subject,
        "solution": rf"{steps} The answer is $\boxed{{{answer}}}$",
    }
    return record, answer


def _work_sum(a: int, b: int) -> tuple[str, bool]:
    """Return the steps of `a + b` and whether there is a carry; the same for the three below."""
    ones = a % 10 + b % 10
    carry = "+1" if ones >= 10 else ""
    tens = a // 10 + b // 10 + ones // 10
    steps = (
        f"We need ${a}+{b}$. Ones: ${a % 10}+{b % 10}={ones}$. "
        f"Tens: ${a // 10}+{b // 10}{carry}={tens}$."
    )
    return steps, bool(carry)


def _work_difference(c: int, a: int) -> tuple[str, bool]:
    borrow = c % 10 < a % 10
    ones = c % 10 + 10 * borrow
    carry = "-1" if borrow else ""
    tens = c // 10 - a // 10 - borrow
    steps = (
        f"We need ${c}-{a}$. Ones: ${ones}-{a % 10}={ones - a % 10}$. "
        f"Tens: ${c // 10}-{a // 10}{carry}={tens}$."
    )
    return steps, borrow


def _work_product(a: int, b: int) -> tuple[str, bool]:
    ones, tens = a * (b % 10), a * (b // 10)
    carry = ones // 10
    steps = (
        rf"We need ${a}\cdot{b}$. Ones: ${a}\cdot{b % 10}={ones}$. "
        rf"Tens: ${a}\cdot{b // 10}={tens}$, ${tens}+{carry}={tens + carry}$."
    )
    return steps, carry > 0


def _work_quotient(c: int, a: int) -> tuple[str, bool]:
    tens, rest = divmod(c // 10, a)
    ones = 10 * rest + c % 10
    steps = (
        rf"We need ${c}/{a}$. Tens: ${a}\cdot{tens}={a * tens}$, ${c // 10}-{a * tens}={rest}$. "
        rf"Ones: ${ones}/{a}={ones // a}$."
    )
    return steps, rest > 0


_WORK: dict[tuple[str, bool], Callable[[int, int], tuple[str, bool]]] = {
    ("+", False): _work_sum,
    ("+", True): _work_difference,
    ("*", False): _work_product,
    ("*", True): _work_quotient,
}
