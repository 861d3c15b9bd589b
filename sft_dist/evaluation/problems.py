"""Examples -> the problems of an evaluation request, prompts tokenised as in training."""

from collections.abc import Sequence
from typing import Any

from sft_dist.data.prompts import build_prompt
from sft_dist.data.records import MathExample
from sft_dist.data.tokenization import token_ids
from sft_dist.evaluation.request import Problem


def build_problems(
    examples: Sequence[MathExample], tokenizer: Any, *, prompt: str
) -> list[Problem]:
    """One problem an example, in the same order.

    Args:
        examples: records with an answer.
        tokenizer: the model's.
        prompt: a name in `data.prompts.PROMPTS`.
    """
    prompts = [build_prompt(prompt, example.problem) for example in examples]
    return [
        Problem(
            id=example.id,
            prompt=text,
            prompt_token_ids=ids,
            problem=example.problem,
            answer=example.answer,
            subject=example.subject,
            level=example.level,
        )
        for example, text, ids in zip(examples, prompts, token_ids(tokenizer, prompts), strict=True)
    ]
