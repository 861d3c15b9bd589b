"""Prompts by name. One function builds them for training and for evaluation.

A prompt ends where generation begins; a target begins with the first generated character and
does not hold the stop token, which `tokenization.py` adds.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PromptFormat:
    """How a problem is asked, and which form of answer is graded."""

    template: str
    target: str
    form: Literal["boxed", "r1_zero"] = "boxed"


PROMPTS: dict[str, PromptFormat] = {
    "default": PromptFormat(
        template="Solve this math problem:\n\n{problem}\n\nAnswer:",
        target=" {solution}",
    ),
    # Source: CS336 assignment 5, prompts/question_only.prompt.
    "question_only": PromptFormat(template="{problem}", target=" {solution}"),
    # Source: the template of DeepSeek-R1-Zero (arXiv 2501.12948, table 1) in the wording of
    # CS336 assignment 5, prompts/r1_zero.prompt. Scores are comparable only with that wording.
    "r1_zero": PromptFormat(
        template=(
            "A conversation between User and Assistant. The User asks a question, and the "
            "Assistant solves it. The Assistant first thinks about the reasoning process in the "
            "mind and then provides the User with the answer. The reasoning process is enclosed "
            "within <think> </think> and answer is enclosed within <answer> </answer> tags, "
            "respectively, i.e., <think> reasoning process here </think> <answer> answer here "
            "</answer>.\nUser: {problem}\nAssistant: <think>"
        ),
        target=" {solution} </think> <answer> {answer} </answer>",
        form="r1_zero",
    ),
    # Source: the qwen25-math-cot prompt of QwenLM/Qwen2.5-Math, evaluation/utils.py.
    "qwen_chat": PromptFormat(
        template=(
            "<|im_start|>system\nPlease reason step by step, and put your final answer within "
            "\\boxed{{}}.<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        target="{solution}",
    ),
}


def build_prompt(name: str, problem: str) -> str:
    """The text the model continues."""
    return PROMPTS[name].template.format(problem=problem)


def build_target(name: str, *, solution: str, answer: str | None) -> str:
    """The text the model learns to continue with, without the stop token.

    Args:
        name: a key of `PROMPTS`.
        solution: worked solution of the record.
        answer: its boxed answer; needed by `r1_zero` only.
    """
    return PROMPTS[name].target.format(solution=solution, answer=answer or "")
