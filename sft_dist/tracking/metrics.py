"""The names a run may log, with unit and meaning: a contract with dashboards and readers.

`docs/metrics.md` is made from this table. A name that is not here is an error.
"""

from typing import NamedTuple

from sft_dist.data.prompts import PROMPTS


class Metric(NamedTuple):
    """Unit and meaning of one name."""

    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    "train/step": Metric("steps", "Completed optimizer updates; 0 is the base model."),
    "train/epoch": Metric("epochs", "Passes over the training examples, with the fraction."),
    "train/loss": Metric("nats/token", "Mean over the target tokens of the whole global batch."),
    "train/objective": Metric(
        "nats", "What the update minimises: train/loss, unless --loss_normalization says otherwise."
    ),
    "train/token_entropy": Metric("nats", "Mean entropy at the target positions."),
    "train/token_accuracy": Metric("share", "Target tokens that were the most probable ones."),
    "train/learning_rate": Metric("1", "Rate of this update."),
    "train/grad_norm": Metric("1", "2-norm of the gradient after clipping."),
    "train/grad_norm_preclip": Metric("1", "2-norm of the gradient before clipping."),
    "train/examples": Metric("examples", "Examples in the global batch."),
    "train/target_tokens": Metric("tokens", "Target tokens in the global batch."),
    "perf/step_seconds": Metric("s", "Wall time of the step."),
    "perf/tokens_per_second": Metric("tokens/s", "Real tokens, prompts too, over all ranks."),
    "perf/mfu": Metric("share", "Model FLOP rate over the GPUs' bf16 peak; known GPUs only."),
    "perf/rank_imbalance": Metric("ratio", "Most tokens on a rank over the mean, this step."),
    "perf/memory_gib": Metric("GiB", "Peak memory allocated on rank 0's GPU."),
    "eval/step": Metric("steps", "Updates the evaluated weights have had."),
    "eval/accuracy": Metric("share", "Problems answered correctly."),
    "eval/accuracy_stderr": Metric("share", "Standard error of the accuracy."),
    "eval/avg_format_reward": Metric("share", "Answers that have a boxed answer."),
    "eval/avg_answer_reward": Metric("share", "Answers whose boxed answer is right."),
    "eval/avg_token_entropy": Metric("nats", "Mean over all generated tokens, raw logits, T=1."),
    "eval/avg_response_length": Metric("tokens", "Generated tokens with the stop token."),
    "eval/avg_response_length_correct": Metric("tokens", "The same of right answers."),
    "eval/avg_response_length_wrong": Metric("tokens", "The same of wrong answers."),
    "eval/truncated_rate": Metric("share", "Answers cut off at generation_max_length."),
    "eval/no_answer_rate": Metric("share", "Answers without a complete box."),
    "eval/unparseable_rate": Metric("share", "Boxed answers the grader cannot read."),
    "eval/timeout_rate": Metric("share", "Answers whose grading ran out of time."),
    "eval/num_problems": Metric("problems", "Problems evaluated."),
    "eval/sample_generations": Metric("table", "The same few problems at every evaluation."),
}


def is_declared(name: str) -> bool:
    """Whether `name` is in the table, as itself or as `eval/<prompt>/...`."""
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "eval" and parts[1] in PROMPTS:
        name = f"eval/{parts[2]}"
    return name in METRICS
