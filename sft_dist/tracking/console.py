"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere."""

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)

SAME_ON_ALL_RANKS = (
    "sft_dist.data.contamination", "sft_dist.data.dataset", "sft_dist.data.layouts",
    "sft_dist.data.tokenization", "sft_dist.preparation",
)  # fmt: skip
"""Every rank reads the same data: rank 0's warnings about it are those of all."""


def set_up_logging(*, rank: int, debug: bool = False) -> None:
    """Rank 0 at INFO on standard error (DEBUG with `--debug`), the others from WARNING on."""
    prefix = f"rank {rank} | " if rank else ""
    logging.basicConfig(format=f"%(asctime)s | {prefix}%(message)s", datefmt="%H:%M:%S")
    level = logging.WARNING if rank else logging.DEBUG if debug else logging.INFO
    for name in ("sft_dist", "__main__"):  # the libraries' own chatter stays at WARNING
        logging.getLogger(name).setLevel(level)
    if rank:
        for name in SAME_ON_ALL_RANKS:
            logging.getLogger(name).setLevel(logging.ERROR)
    if not debug:
        _quiet_libraries()


def _quiet_libraries() -> None:
    """Bars and warnings of the libraries that say nothing to whoever trains."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # DeepSpeed 0.19.8 calls collectives by names that torch 2.13 is about to rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def log_to_file(run_dir: Path, rank: int) -> None:
    """Every rank also writes to `logs/rank_00000.log`."""
    handler = logging.FileHandler(run_dir / "logs" / f"rank_{rank:05d}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s | %(message)s"))
    logging.getLogger().addHandler(handler)


class Progress:
    """Steps done, with the time left; a bar only where standard error is a terminal."""

    def __init__(self, *, total_steps: int, step: int, show: bool) -> None:
        self._bar = tqdm(
            total=total_steps, initial=step, unit="step", dynamic_ncols=True,
            disable=not (show and sys.stderr.isatty()),
        )  # fmt: skip
        self._redirect = logging_redirect_tqdm()
        self._redirect.__enter__()

    def advance(self, row: Mapping[str, Any]) -> None:
        """One step is done."""
        if "train/loss" in row:
            self._bar.set_postfix(loss=f"{row['train/loss']:.4f}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._redirect.__exit__(None, None, None)
        self._bar.close()


def step_line(row: Mapping[str, Any], total_steps: int, seconds_left: float) -> str:
    """One line a logged step, in fixed order."""
    learnt = ["no update: the loss or its gradient is not finite"]
    if "train/loss" in row:
        norm = row["train/grad_norm_preclip"]
        learnt = [f"loss {row['train/loss']:.4f}", f"grad norm {norm:.3f}"]
    parts = [
        f"step {row['step']:>{len(str(total_steps))}}/{total_steps}",
        *learnt,
        f"lr {row['train/learning_rate']:.2e}",
        f"{row['perf/tokens_per_second']:,.0f} tok/s",
    ]
    if "perf/mfu" in row:
        parts.append(f"MFU {row['perf/mfu']:.1%}")
    minutes, seconds = divmod(int(seconds_left), 60)
    parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return " | ".join(parts)


def evaluation_line(row: Mapping[str, Any]) -> str:
    """One line an evaluation, with the interval of the accuracy and what changed since step 0."""
    prefix = next(name for name in row if name.endswith("/accuracy")).removesuffix("accuracy")
    named = prefix.removeprefix("eval/")  # of the training prompt: nothing
    values = {name.removeprefix(prefix): value for name, value in row.items()}
    line = (
        f"evaluation of step {row['eval/step']}{f' ({named[:-1]})' if named else ''}: "
        f"accuracy {values['accuracy']:.1%} {interval_text(values)}, "
        f"format {values['avg_format_reward']:.1%}, "
        f"{values['avg_response_length']:.0f} tokens"
    )
    if row["eval/step"] and "vs_base_delta" in values:
        line += f"; since step 0 {change_text(values)}"
    return line


def interval_text(values: Mapping[str, Any]) -> str:
    """The interval of an accuracy, from the metrics of an evaluation without their prefix."""
    low, high = values["accuracy_low"], values["accuracy_high"]
    return f"({low:.1%} to {high:.1%}) of {values['num_problems']}"


def change_text(values: Mapping[str, Any]) -> str:
    """What changed since step 0, from the same metrics."""
    gained, lost = values["vs_base_gained"], values["vs_base_lost"]
    return f"{gained} gained, {lost} lost, p = {values['vs_base_p_value']:.2g}"
