"""The sentences at the top of the page: what trained on what, from where to where, how sure."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from sft_dist.reporting.training import Training


def what_trained(settings: dict[str, Any], training: Training) -> str:
    """`Qwen2.5-Math-1.5B on MATH: 90 of 90 steps of 256 examples, ...`."""
    model = _name(settings.get("model_path")) or "An unknown model"
    data = _name(settings.get("data_path"))
    parts = []
    if training.rows:
        batch = settings.get("global_batch_size")
        size = f" of {batch} examples" if batch else ""
        parts.append(f"{training.step} of {training.total_steps or '?'} steps{size}")
        if isinstance(settings.get("learning_rate"), float):
            parts.append(f"peak learning rate {settings['learning_rate']:g}")
    return f"{model}{f' on {data}' if data else ''}" + (f": {', '.join(parts)}" if parts else "")


def from_where_to_where(first: dict[str, Any], last: dict[str, Any]) -> str:
    """Accuracy of two evaluations (as in `Scores`) and what lies between them."""
    change = last["change"]
    begin, end = _accuracy(first), _accuracy(last)
    problems = f"of {last['rates']['num_problems']} problems"
    if change is None:
        return f"Accuracy {end} {problems} at step {last['step']}."
    low, high = (100 * bound for bound in change["interval"])
    return (
        f"Accuracy went from {begin} {_at(first['step'])} to {end} {problems} at step "
        f"{last['step']}: {100 * change['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], "
        f"{change['gained']} gained and {change['lost']} lost, "
        f"{p_value(change['p_value'])} (McNemar, paired)."
    )


def best_of(evaluations: Sequence[dict[str, Any]]) -> str:
    """Says which step was best, where that was not the last; empty otherwise."""
    best = max(evaluations, key=lambda e: (e["rates"]["accuracy"], -e["step"]))
    if best["rates"]["accuracy"] == evaluations[-1]["rates"]["accuracy"]:
        return ""
    return f"The best was {_accuracy(best)} at step {best['step']}."


def p_value(p: float) -> str:
    """`p = 0.03`, `p < 1e-15`; never zero."""
    if p < 1e-15:
        return "p < 1e-15"
    return f"p = {p:.1e}" if p < 0.001 else f"p = {p:.2g}"


def _at(step: int) -> str:
    return "at the base" if step == 0 else f"at step {step}"


def _accuracy(evaluation: dict[str, Any]) -> str:
    rates = evaluation["rates"]
    text = f"{rates['accuracy']:.1%}"
    if rates["interval"] is None:
        return text
    low, high = rates["interval"]
    return f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def _name(path: Any) -> str:
    return PurePath(path).name if isinstance(path, str) else ""
