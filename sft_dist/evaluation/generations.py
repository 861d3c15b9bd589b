"""`log_generations`: what a model wrote, beside what it should have written, and how it was graded.

The table of a few samples that evaluations log (`samples.py`), and the averages that go with it;
the list of columns is that of CS336, assignment 5 (section 4.2, "logging generations").
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

RewardFunction = Callable[[str, Any], Mapping[str, Any]]


def log_generations(
    prompts: Sequence[str],
    responses: Sequence[str],
    ground_truths: Sequence[Any],
    *,
    reward_fn: RewardFunction,
    token_entropies: Sequence[float],
    response_lengths: Sequence[int],
) -> dict[str, Any]:
    """Grade responses and lay them out for logging.

    Args:
        prompts: what was asked.
        responses: what was generated.
        ground_truths: reference answers.
        reward_fn: (response, ground truth) -> `format_reward`, `answer_reward`, `reward`; whatever
            else it gives becomes a column too.
        token_entropies: mean entropy of each response's tokens, nats.
        response_lengths: tokens of each response.

    Returns:
        `rows`: one dictionary a response; `averages`: reward, format and answer reward, token
        entropy, response length over all, over right and over wrong responses. An average of
        nothing is left out.

    Raises:
        ValueError: when the lists differ in length.
    """
    columns = (prompts, responses, ground_truths, token_entropies, response_lengths)
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"expected lists of one length, found {[len(c) for c in columns]}")
    rows = [
        {
            "prompt": prompt,
            "response": response,
            "ground_truth": truth,
            **reward_fn(response, truth),
            "token_entropy": entropy,
            "response_length": length,
        }
        for prompt, response, truth, entropy, length in zip(*columns, strict=True)
    ]
    return {"rows": rows, "averages": _averages(rows)}


def _averages(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    right = [row for row in rows if row["answer_reward"] == 1.0]
    wrong = [row for row in rows if row["answer_reward"] != 1.0]
    wanted = {
        "avg_reward": (rows, "reward"),
        "avg_format_reward": (rows, "format_reward"),
        "avg_answer_reward": (rows, "answer_reward"),
        "avg_token_entropy": (rows, "token_entropy"),
        "avg_response_length": (rows, "response_length"),
        "avg_response_length_correct": (right, "response_length"),
        "avg_response_length_wrong": (wrong, "response_length"),
    }
    return {
        name: sum(row[key] for row in chosen) / len(chosen)
        for name, (chosen, key) in wanted.items()
        if chosen
    }
