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
    "train/skipped": Metric(
        "1", "1 when no update was made, see --on_nonfinite; the row then has no loss and no norm."
    ),
    "train/examples": Metric("examples", "Examples in the global batch."),
    "train/target_tokens": Metric("tokens", "Target tokens in the global batch."),
    "perf/step_seconds": Metric("s", "Wall time of the step, waiting for its batch included."),
    "perf/data_wait_seconds": Metric("s", "Of that, the time rank 0 waited for its batch."),
    "perf/tokens_per_second": Metric(
        "tokens/s", "Real tokens of the global batch, prompts too, / step_seconds; all ranks."
    ),
    "perf/useful_token_share": Metric(
        "share", "Real tokens / tokens computed, over all ranks: 1 when packed, less with padding."
    ),
    "perf/rank_imbalance": Metric(
        "ratio", "Most tokens computed on a rank / mean over the ranks, in this step."
    ),
    "perf/mfu": Metric(
        "share",
        "(6 x parameters x tokens + attention) / step_seconds / bf16 peak; known GPUs only. As of "
        "a step that computes everything: the head and what follows the last layer's attention are "
        "not computed for prompt tokens, and count anyway.",
    ),
    "perf/memory_gib": Metric(
        "GiB",
        "Peak on rank 0 so far: allocated on its GPU; on a CPU, resident size of the process.",
    ),
    "perf/evaluation_seconds": Metric(
        "s",
        "Time rank 0 gave to evaluation since the step before: export, submit, poll, collect, log.",
    ),
    "perf/save_stall_seconds": Metric(
        "s", "Time that rank 0 stood still for saving, between the row before and this step."
    ),
    "startup/imports_seconds": Metric("s", "Process start to settings read and torch imported."),
    "startup/data_seconds": Metric("s", "Reading and tokenising the data, or reading the cache."),
    "startup/ranks_seconds": Metric("s", "Process group, run directory, checkpoint to resume."),
    "startup/observers_seconds": Metric("s", "Record, wandb, start of the evaluation worker."),
    "startup/model_seconds": Metric("s", "Loading the weights."),
    "startup/engine_seconds": Metric("s", "Building the engine, and its state when resuming."),
    "startup/first_step_seconds": Metric("s", "From there to the end of the first step."),
    "startup/total_seconds": Metric("s", "Sum of the parts: process start to first step done."),
    "eval/step": Metric("steps", "Updates the evaluated weights have had."),
    "eval/prompt": Metric("text", "Prompt of this evaluation."),
    "eval/decoding": Metric("text", "Decoding of this evaluation."),
    "eval/grader_version": Metric("text", "Grader of this evaluation."),
    "eval/weights_fingerprint": Metric("text", "SHA-256 of the weights that answered."),
    "eval/accuracy": Metric("share", "Problems answered correctly; of several answers, the mean."),
    "eval/accuracy_stderr": Metric(
        "share", "Standard error of the accuracy; answers to one problem are one cluster."
    ),
    "eval/accuracy_low": Metric("share", "Lower end of Wilson's 95 % interval of the accuracy."),
    "eval/accuracy_high": Metric("share", "Upper end of Wilson's 95 % interval of the accuracy."),
    "eval/accuracy_level_*": Metric("share", "Accuracy of the problems of one level."),
    "eval/accuracy_subject_*": Metric("share", "Accuracy of one subject; 16 subjects at most."),
    "eval/pass_at_*": Metric(
        "share", "Chance that one of k answers is right, unbiased; with --eval_num_samples only."
    ),
    "eval/vs_base_delta": Metric("share", "Accuracy minus that of step 0, same problems."),
    "eval/vs_base_gained": Metric("problems", "Right now, wrong at step 0."),
    "eval/vs_base_lost": Metric("problems", "Wrong now, right at step 0."),
    "eval/vs_base_p_value": Metric("1", "Of no difference to step 0: exact McNemar, two-sided."),
    "eval/vs_previous_delta": Metric("share", "Accuracy minus that of the evaluation before."),
    "eval/vs_previous_gained": Metric("problems", "Right now, wrong at the evaluation before."),
    "eval/vs_previous_lost": Metric("problems", "Wrong now, right at the evaluation before."),
    "eval/vs_previous_p_value": Metric("1", "The same test against the evaluation before."),
    "eval/avg_format_reward": Metric("share", "Answers that have a boxed answer."),
    "eval/avg_answer_reward": Metric("share", "Answers whose boxed answer is right."),
    "eval/avg_token_entropy": Metric("nats", "Mean over all generated tokens, raw logits, T=1."),
    "eval/avg_response_length": Metric("tokens", "Generated tokens with the stop token."),
    "eval/avg_response_length_correct": Metric("tokens", "The same of right answers."),
    "eval/avg_response_length_wrong": Metric("tokens", "The same of wrong answers."),
    "eval/truncated_rate": Metric("share", "Answers cut off at generation_max_length."),
    "eval/wrong_rate": Metric("share", "Answers that were read and are wrong."),
    "eval/no_answer_rate": Metric("share", "Answers without a complete box."),
    "eval/unparseable_rate": Metric("share", "Boxed answers the grader cannot read."),
    "eval/timeout_rate": Metric("share", "Answers whose grading ran out of time."),
    "eval/num_problems": Metric("problems", "Problems evaluated."),
    "eval/sample_generations": Metric("table", "The same few problems at every evaluation."),
}

_FAMILIES = tuple(name.removesuffix("*") for name in METRICS if name.endswith("*"))


def is_declared(name: str) -> bool:
    """Whether `name` is in the table, as itself, of a family (`*`), or as `eval/<prompt>/...`."""
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "eval" and parts[1] in PROMPTS:
        name = f"eval/{parts[2]}"
    return name in METRICS or any(
        name.startswith(family) and name != family and "/" not in name.removeprefix(family)
        for family in _FAMILIES
    )
