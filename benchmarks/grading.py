"""Compare our grader with Math-Verify and with plain string equality on the labelled cases.

    python benchmarks/grading.py [--cases tests/grading/cases.jsonl] [--math_path MATH/train]

Prints one line a grader: agreement with the labels, wrong accepts, wrong refusals, answers given up
(counted as refused), milliseconds for 1,000 answers, the median and the slowest answer. Math-Verify
takes part if it is installed; it gets the answer that our extraction finds, in a process of its own
that is killed after 10 s for one answer or at 1 GiB. Most cases were written with our grader at
hand, so its agreement there is a regression check, not an estimate.

`--math_path` names a folder of MATH problems (one JSON file each): every solution is graded against
its own answer, and 20,000 random pairs of answers are compared; what is accepted there is printed,
to be read by a person.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sft_dist.grading import GradingPool, extract_answer_tag, extract_boxed, grade
from sft_dist.grading.equivalence import compare_answers
from sft_dist.grading.grader import extract_answer
from sft_dist.grading.second import NoSecondGraderError, open_second_pool

Grader = Callable[[str, str, str], bool]  # response, gold, form
_LIMIT_SECONDS = 10.0
_DEFAULT_CASES = Path(__file__).resolve().parents[1] / "tests" / "grading" / "cases.jsonl"


@dataclass(frozen=True)
class Case:
    """One labelled response."""

    response: str
    gold: str
    form: str
    correct: bool


@dataclass(frozen=True)
class Score:
    """What one grader did on all cases."""

    name: str
    num_agreed: int
    num_wrong_accepts: int
    num_wrong_refusals: int
    num_raised: int
    seconds: list[float]


def load_cases(path: Path) -> list[Case]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Case(
            row["response"],
            row["gold"],
            row.get("form", "boxed"),
            row["expected"] in ("correct", True),
        )
        for row in rows
    ]


def ours(response: str, gold: str, form: str) -> bool:
    return grade(response, gold, form="r1_zero" if form == "r1_zero" else "boxed").verdict == (
        "correct"
    )


def same_string(response: str, gold: str, form: str) -> bool:
    text = extract_answer_tag(response) if form == "r1_zero" else response
    answer = extract_boxed(text or "")
    return answer is not None and "".join(answer.split()) == "".join(gold.split())


def asking(pool: GradingPool) -> Grader:
    """Make a grader of a pool; raises where the pool gave up."""

    def grader(response: str, gold: str, form: str) -> bool:
        answer, _ = extract_answer(response, form=form)
        if answer is None or not answer.strip():
            return False
        (grade,) = pool.grade_many([(answer, gold)])
        if grade.verdict not in ("correct", "wrong"):
            raise TimeoutError(grade.verdict)
        return grade.verdict == "correct"

    return grader


def measure(name: str, grader: Grader, cases: Sequence[Case]) -> Score:
    seconds, agreed, accepts, refusals, raised = [], 0, 0, 0, 0
    grader(r"\boxed{\pi}", "3", "boxed")  # imports and starts are not part of the times
    for case in cases:
        start = time.perf_counter()
        try:
            accepted = grader(case.response, case.gold, case.form)
        except Exception:  # a grader under test may fail in any way; that is counted
            accepted, raised = False, raised + 1
        seconds.append(time.perf_counter() - start)
        agreed += accepted == case.correct
        accepts += accepted and not case.correct
        refusals += case.correct and not accepted
    return Score(name, agreed, accepts, refusals, raised, seconds)


def self_check(math_path: Path, num_pairs: int = 20_000) -> None:
    """Every gold answer equals itself; of random pairs the accepted ones are shown."""
    solutions = [
        json.loads(path.read_text(encoding="utf-8"))["solution"]
        for path in sorted(math_path.rglob("*.json"))
    ]
    pairs = [(text, gold) for text in solutions if (gold := extract_boxed(text)) is not None]
    start = time.perf_counter()
    unequal = [gold for text, gold in pairs if gold and not ours(text, f"{gold}\\,", "boxed")]
    seconds = time.perf_counter() - start
    print(
        f"{len(solutions)} solutions, {len(pairs)} with a box, {seconds:.1f} s; unlike themselves:"
    )
    print("\n".join(unequal) or "none")
    golds = [gold for _, gold in pairs]
    chooser = random.Random(0)
    print(f"accepted among {num_pairs} random pairs:")
    for _ in range(num_pairs):
        first, second = chooser.choice(golds), chooser.choice(golds)
        if first != second and compare_answers(first, second).verdict == "correct":
            print(f"  {first}  =  {second}")


def line(score: Score) -> str:
    num_cases = len(score.seconds)
    total, median, worst = sum(score.seconds), statistics.median(score.seconds), max(score.seconds)
    return (
        f"{score.name:14} {100 * score.num_agreed / num_cases:9.1f} % "
        f"{score.num_wrong_accepts:8d} {score.num_wrong_refusals:9d} {score.num_raised:9d} "
        f"{1e6 * total / num_cases:12.0f} {1e3 * median:10.2f} {1e3 * worst:9.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=_DEFAULT_CASES)
    parser.add_argument("--math_path", type=Path)
    arguments = parser.parse_args()
    cases = load_cases(arguments.cases)
    print(f"{len(cases)} cases, {sum(case.correct for case in cases)} of them correct")
    print(
        "grader          agreement  accepts  refusals  given up  ms per 1,000  median ms  worst ms"
    )
    print(line(measure("ours", ours, cases)))
    try:
        with open_second_pool(1, _LIMIT_SECONDS) as pool:
            print(line(measure("math-verify", asking(pool), cases)))
    except NoSecondGraderError:
        print("math-verify    not installed")
    print(line(measure("same string", same_string, cases)))
    if arguments.math_path is not None:
        self_check(arguments.math_path)


if __name__ == "__main__":
    main()
