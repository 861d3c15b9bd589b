"""Grade one response against one gold answer, in this process.

Every step is bounded (see `limits`), so this needs no timeout, no signal and no other process; use
`GradingPool` where even a defect of this package must not stop the caller.
"""

from dataclasses import dataclass
from typing import Literal

from sft_dist.grading.equivalence import compare_answers
from sft_dist.grading.extract import extract_answer_tag, extract_boxed

GRADER_VERSION = "1.2.0"
"""Changes whenever a verdict may change; stored with every grade so that curves stay comparable."""

Verdict = Literal["correct", "wrong", "no_answer", "unparseable", "timeout"]
Form = Literal["boxed", "r1_zero"]


@dataclass(frozen=True)
class Grade:
    """What was decided, and how.

    Attributes:
        verdict: `correct` or `wrong`; `no_answer` without (or with an empty) answer; `unparseable`
            where the answer or the gold could not be read and they are not the same text;
            `timeout` where the decision was given up.
        format_ok: The response has the form asked for, whatever its answer.
        extracted: The answer as the response wrote it; None without one.
        stage: What decided: `extraction`, `identical`, `integer`, `rational`, `numeric`, `text`,
            `structural`, `symbolic`, `parse`, `limit`, or `worker` (see `GradingPool`).
    """

    verdict: Verdict
    format_ok: bool
    extracted: str | None
    stage: str


def grade(response: str, gold: str, *, form: Form = "boxed") -> Grade:
    r"""Extract the answer of `response` and say whether it equals `gold`.

    `boxed` takes the last complete box. `r1_zero` takes the last `<answer>` tag, and the box in it
    if there is one. `gold` is an answer, not a solution; a gold that is itself boxed is unboxed.

    Raises:
        ValueError: `form` is neither of the two.
    """
    extracted, format_ok = extract_answer(response, form=form)
    if extracted is None or not extracted.strip():
        return Grade("no_answer", format_ok, extracted, "extraction")
    unboxed_gold = extract_boxed(gold)
    comparison = compare_answers(extracted, gold if unboxed_gold is None else unboxed_gold)
    return Grade(comparison.verdict, format_ok, extracted, comparison.stage)


def extract_answer(
    response: str, *, form: str = "boxed", strict: bool = False
) -> tuple[str | None, bool]:
    """Return the answer text (or None) and whether the response has the form asked for."""
    if form == "boxed":
        boxed = extract_boxed(response)
        return boxed, boxed is not None
    if form != "r1_zero":
        raise ValueError(f"expected form 'boxed' or 'r1_zero', found {form!r}")
    tag = extract_answer_tag(response, strict=strict)
    if tag is None:
        return None, False
    if "\\boxed" in tag or "\\fbox" in tag:
        return extract_boxed(tag), True
    return tag, True
