"""How many steps, and how long they will take."""

from sft_dist.data.sampler import BatchPlan
from sft_dist.errors import counted
from sft_dist.preflight_checks.findings import Finding
from sft_dist.preflight_checks.longest import LongestBatch


def steps_finding(plan: BatchPlan, warmup_steps: int, world_size: int) -> Finding:
    """What the schedule is."""
    text = (
        f"{plan.total_steps} ({plan.steps_per_epoch} an epoch, {warmup_steps} of warm-up), "
        f"global batch {plan.global_batch_size} on {counted(world_size, 'rank')}"
    )
    if plan.global_batch_size < world_size:
        return Finding("steps", "warning", f"{text}: some ranks have no example; use fewer")
    return Finding("steps", "ok", text)


def expected_seconds(longest: LongestBatch, probe_seconds: float) -> float:
    """Seconds of a usual step, from those of the probe: in proportion to the tokens."""
    return probe_seconds * longest.mean_rank_tokens / max(1, longest.probed_tokens)


def hours_finding(plan: BatchPlan, step_seconds: float) -> Finding:
    """The expected time of training; evaluations beside it and checkpoints are not in it."""
    if not step_seconds:
        return Finding("hours", "note", "not known without --probe")
    hours = plan.total_steps * step_seconds / 3600
    text = f"{hours:.2f} hours of steps ({step_seconds:.2f} s each), without evaluation and saving"
    return Finding("hours", "ok", text)
