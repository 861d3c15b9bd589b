"""A collective that failed, told as what it is: another rank has left, or does not come."""

from pathlib import Path

import torch.distributed as dist

from sft_dist.errors import RanksError
from sft_dist.runtime.watch import RankWatch

GLOO = ("gloo", "Gloo", "Application timeout caused pair closure")
"""Gloo's errors are RuntimeErrors; they name its source files. Not so the last one: what is told
to a second collective that waits for the same rank when the time of the first one is over."""


def is_lost_rank(error: BaseException | None) -> bool:
    """Whether the process group failed, not this rank's own work; a save may have met it first."""
    if error is None:
        return False
    is_gloo = isinstance(error, RuntimeError) and any(name in str(error) for name in GLOO)
    return is_gloo or isinstance(error, dist.DistError) or is_lost_rank(error.__cause__)


def lost_rank_error(watch: RankWatch, run_dir: Path | None, *, newest: Path | None) -> RanksError:
    """What the user should read instead of an error for which `is_lost_rank` holds.

    Args:
        watch: knows where this rank was, and perhaps whom it waited for.
        run_dir: the run; None when it has not come to write there.
        newest: the last whole checkpoint.
    """
    what = watch.verdict or _who_left(watch)
    if run_dir is None:
        return RanksError(f"{what}; nothing has been done yet: start it again")
    keeps = f"the last checkpoint is {newest}" if newest else "there is no checkpoint yet"
    return RanksError(
        f"{what}; what each rank wrote is in {run_dir / 'logs'}; {keeps}; "
        f"go on with --resume_from_checkpoint latest --output_dir {run_dir}"
    )


def _who_left(watch: RankWatch) -> str:
    told = watch.others_failure()
    if told:
        return f"{watch.where()}: another rank has failed. {told}"
    return (
        f"{watch.where()}: another rank has left without a word: killed, or its host is gone or "
        "cut off"
    )
