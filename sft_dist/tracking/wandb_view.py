"""Weights & Biases as a view of the record. The only importer of wandb (0.31).

It may fail at any time: that is warned of once, and training goes on.
"""

import logging
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sft_dist.config import TrainConfig

logger = logging.getLogger(__name__)

AXES = {
    "train": "train/step",
    "perf": "train/step",
    "startup": "train/step",
    "eval": "eval/step",
}
SAMPLES = "eval/sample_generations"


class WandbView:
    """One wandb run; rank 0 only. A disabled one does nothing, and imports nothing (0.6 s)."""

    def __init__(self, config: TrainConfig, run_dir: Path, run_id: str) -> None:
        mode = resolve_mode(config.tracking.wandb_mode)
        self._is_on = mode != "disabled"
        self._samples: Any = None  # the table, from the first samples on
        self._run: Any = None
        self._run = self._guarded(lambda: _start(config, run_dir, run_id, mode))

    @property
    def url(self) -> str | None:
        """Address of an online run."""
        return None if self._run is None or self._run.offline else self._run.url

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row; its own axis (`train/step`, `eval/step`) places it, whatever came before."""
        self._guarded(lambda: self._run.log(dict(row)))

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add sample generations of `step` to the run's one table; only the new rows are sent."""
        if rows:
            self._guarded(lambda: self._add_samples(step, rows))

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        self._guarded(lambda: self._run.finish(exit_code=int(failed)))

    def _add_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._samples is None:
            self._samples = _new_table(["eval/step", *rows[0]])
        for row in rows:
            self._samples.add_data(step, *(row.get(name) for name in self._samples.columns[1:]))
        self._run.log({"eval/step": step, SAMPLES: self._samples})

    def _guarded(self, work: Callable[[], Any]) -> Any:
        if not self._is_on:
            return None
        try:
            return work()
        except Exception:
            self._is_on = False
            logger.exception("wandb failed; metrics.jsonl stays the record, training goes on")
            return None


def resolve_mode(requested: str) -> Any:
    """`auto` is WANDB_MODE, else online where a key is found, else offline. Never a prompt."""
    if requested != "auto":
        return requested
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, ValueError, netrc.NetrcParseError):  # ValueError: not text
        return False


def _start(config: TrainConfig, run_dir: Path, run_id: str, mode: Any) -> Any:
    import wandb

    settings = wandb.Settings(console="off", x_disable_stats=True, init_timeout=60, silent=True)
    arguments: dict[str, Any] = {
        "project": config.tracking.wandb_project,
        "name": config.tracking.wandb_run_name or run_dir.name,
        "group": config.tracking.wandb_group,
        "dir": str(run_dir),
        "id": run_id,
        "resume": "allow",
        "config": config.flat(),
        "settings": settings,
    }
    try:
        run = wandb.init(mode=mode, **arguments)
    except Exception:
        if mode != "online":
            raise
        logger.warning("wandb cannot go online; this run is offline, `wandb sync` sends it later")
        run = wandb.init(mode="offline", **arguments)
    for prefix, axis in AXES.items():
        run.define_metric(axis)
        run.define_metric(f"{prefix}/*", step_metric=axis)
    return run


def _new_table(columns: Sequence[str]) -> Any:
    """A table that grows: each logging writes what was added since the last one."""
    import wandb

    # Mixed types, as a problem may have no gold answer and an answer may be a number in text.
    return wandb.Table(columns=list(columns), log_mode="INCREMENTAL", allow_mixed_types=True)
