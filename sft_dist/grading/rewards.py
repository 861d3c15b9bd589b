"""Reward functions with the names, arguments and result that course and paper code expects.

Each returns `{"format_reward", "answer_reward", "reward"}`, all 0.0 or 1.0; the reward is that of
the answer, which needs the format. The grading is ours, so scores differ from the reference where
the reference is wrong.
"""

import math
from collections.abc import Sequence
from decimal import Decimal

from sft_dist.grading import second
from sft_dist.grading.extract import extract_boxed
from sft_dist.grading.grader import compare_answers, extract_answer

GroundTruth = str | int | float | Sequence[str]


def question_only_reward_fn(
    response: str, ground_truth: GroundTruth, fast: bool = True
) -> dict[str, float]:
    r"""Score the last box of `response`.

    `ground_truth` may be a list of acceptable answers. `fast=False` also accepts what Math-Verify
    accepts; it runs in a process of its own with a deadline, so this works from any thread.

    Raises:
        ImportError: `fast=False` without the `math-verify` package.
    """
    answer, format_ok = extract_answer(response, form="boxed")
    return _rewards(answer, format_ok, _golds(ground_truth), fast)


def r1_zero_reward_fn(
    response: str, ground_truth: GroundTruth, fast: bool = True, *, strict_format: bool = False
) -> dict[str, float]:
    """Score what stands in the `<answer>` tag after `</think>`.

    `strict_format` asks for the exact string `</think> <answer>` as the reference does; otherwise
    white space between the two tags is free. `ground_truth` and `fast` as in
    `question_only_reward_fn`.
    """
    answer, format_ok = extract_answer(response, form="r1_zero", strict=strict_format)
    return _rewards(answer, format_ok, _golds(ground_truth), fast)


def _rewards(answer: str | None, format_ok: bool, golds: list[str], fast: bool) -> dict[str, float]:
    correct = False
    if format_ok and answer is not None and answer.strip():
        correct = any(compare_answers(answer, gold).verdict == "correct" for gold in golds)
        if not correct and not fast:
            correct = any(second.second_opinion(answer, gold) for gold in golds)
    return {
        "format_reward": float(format_ok),
        "answer_reward": float(correct),
        "reward": float(correct),
    }


def _golds(ground_truth: GroundTruth) -> list[str]:
    golds = [ground_truth] if isinstance(ground_truth, str | int | float) else list(ground_truth)
    texts = [_written_out(gold) for gold in golds]
    unboxed = [extract_boxed(text) for text in texts]
    return [text if box is None else box for text, box in zip(texts, unboxed, strict=True)]


def _written_out(gold: str | int | float) -> str:
    """`1e-07` of Python would be read as a product with Euler's number."""
    if isinstance(gold, float) and math.isfinite(gold):
        return format(Decimal(repr(gold)), "f")
    return str(gold)
