"""What `--data_path` and its companions mean: examples to train on, problems to evaluate."""

import logging
from dataclasses import dataclass

from sft_dist.config import DataConfig
from sft_dist.data.records import LoadedSplit, MathExample, has_split, load_evaluation, load_split
from sft_dist.data.selection import hold_out, stratified_sample
from sft_dist.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problems:
    """The examples of a run, before tokenisation."""

    train: list[MathExample]
    evaluation: list[MathExample]
    """The evaluated sample, in a fixed order; empty when nothing is evaluated."""


def load_problems(config: DataConfig, *, evaluate: bool, max_eval_samples: int) -> Problems:
    """Read the training split and choose the problems to evaluate.

    Raises:
        DataError: naming the paths tried; or there is no test split and no other source is named.
    """
    train = _read(load_split(config.data_path, "train"))
    if config.holdout:  # kept from training also when they are only scored later
        train, held = _split_off(train, config.holdout)
        return Problems(train, stratified_sample(held, max_eval_samples) if evaluate else [])
    return Problems(train, load_evaluation_problems(config, max_eval_samples) if evaluate else [])


def load_evaluation_problems(config: DataConfig, max_eval_samples: int) -> list[MathExample]:
    """The evaluated sample: of what `--holdout` keeps, of `--eval_data_path`, or of the test split.

    The same problems as in a run with the same flags.
    """
    if config.holdout:
        train = _read(load_split(config.data_path, "train"))
        return stratified_sample(_split_off(train, config.holdout)[1], max_eval_samples)
    if config.eval_data_path:
        loaded = load_evaluation(config.eval_data_path)
    elif has_split(config.data_path, "test"):
        loaded = load_split(config.data_path, "test")
    else:
        raise DataError(
            f"{config.data_path} has no test split to evaluate on; name problems with "
            "--eval_data_path, keep some with --holdout N, or take --eval_placement off"
        )
    return stratified_sample(_read(loaded), max_eval_samples)


def _split_off(train: list[MathExample], count: int) -> tuple[list[MathExample], list[MathExample]]:
    if count >= len(train):
        raise DataError(f"--holdout {count}: there are only {len(train)} examples")
    return hold_out(train, count)


def _read(loaded: LoadedSplit) -> list[MathExample]:
    logger.info("read %d problems from %s", len(loaded.examples), loaded.source)
    if loaded.skipped:
        logger.warning("%s", loaded.describe_skipped())
    return loaded.examples
