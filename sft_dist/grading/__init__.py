r"""Is this answer the same as the gold answer? No torch, no network, no evaluation of answer text.

`grade` decides one answer in this process, `GradingPool` many of them in worker processes that can
be killed, the two reward functions keep the contract of the course and paper code of the field.
The answer is read into a bounded tree of our own; nothing that a model wrote is ever run as code.
"""

from sft_dist.grading.extract import extract_answer_tag, extract_boxed
from sft_dist.grading.grader import GRADER_VERSION, Grade, grade
from sft_dist.grading.pool import GradingPool
from sft_dist.grading.rewards import question_only_reward_fn, r1_zero_reward_fn

__all__ = [
    "GRADER_VERSION",
    "Grade",
    "GradingPool",
    "extract_answer_tag",
    "extract_boxed",
    "grade",
    "question_only_reward_fn",
    "r1_zero_reward_fn",
]
