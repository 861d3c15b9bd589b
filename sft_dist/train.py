"""The recipe, top to bottom: `python -m sft_dist.train`, `sft-train`, or either under torchrun.

    torchrun --nproc_per_node 8 -m sft_dist.train --model_path DIR --data_path DIR

Heavy imports stand inside the functions: `--help` and faults of the configuration answer at once.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sft_dist.arguments import parse_train_config
from sft_dist.config import TrainConfig
from sft_dist.engines.ds_config import ds_config_faults
from sft_dist.errors import ConfigError, SftDistError
from sft_dist.runtime.launch_environment import (
    let_waiting_threads_sleep,
    rank_from_environment,
    tell_launcher,
    world_size_from_environment,
)
from sft_dist.validation import config_faults

if TYPE_CHECKING:
    from sft_dist.evaluation.session import Evaluations
    from sft_dist.loop import TrainingLoop
    from sft_dist.preparation import Prepared
    from sft_dist.runtime.distributed import Ranks
    from sft_dist.runtime.stopping import StopRequest
    from sft_dist.runtime.watch import RankWatch
    from sft_dist.tracking.startup import StartupTimes
    from sft_dist.tracking.tracker import Tracker
    from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exit codes: 0 finished or stopped as asked, 1 failed, 2 cannot be run."""
    try:
        config = parse_train_config(
            sys.argv[1:] if argv is None else argv, checks=(config_faults, ds_config_faults)
        )
        train(config)
    except SftDistError as error:
        is_config = isinstance(error, ConfigError)
        rank = rank_from_environment()
        if rank == 0 or not is_config:  # faults of the configuration are the same on every rank
            print(f"{f'rank {rank}: ' if rank else ''}error: {error}", file=sys.stderr, flush=True)
        tell_launcher(error)
        sys.exit(2 if is_config else 1)


def train(config: TrainConfig) -> None:
    """Run the job that `config` describes, from a fresh start or from a checkpoint."""
    from sft_dist.garbage import collector_paused
    from sft_dist.runtime.stopping import stop_on_signals, stop_with_parent

    stop_with_parent()
    if config.evaluation.eval_placement == "shared":
        let_waiting_threads_sleep()
    with stop_on_signals() as stop:  # before all that takes time
        with collector_paused():
            from sft_dist.ending import finish
            from sft_dist.preparation import prepare
            from sft_dist.runtime.distributed import use_deterministic_kernels
            from sft_dist.tracking.console import set_up_logging
            from sft_dist.tracking.startup import StartupTimes

        startup = StartupTimes()
        set_up_logging(rank=rank_from_environment(), debug=config.tracking.debug)
        if config.engine.deterministic:
            use_deterministic_kernels()
        startup.done("imports")
        prepared = prepare(config, world_size=world_size_from_environment())
        startup.done("data")
        loop, state = train_together(config, prepared, stop, startup)
        if loop.ranks.is_zero:
            # The ranks have left the process group: nobody waits for the evaluations but rank 0.
            finish(loop, state, loop.run_dir, stop)


def train_together(
    config: TrainConfig, prepared: "Prepared", stop: "StopRequest", startup: "StartupTimes"
) -> tuple["TrainingLoop", "TrainState"]:
    """What the ranks do with one another: to the last step, or to an agreed stop."""
    from sft_dist.ending import end_stuck, fail
    from sft_dist.opening import open_run_dir, starting_point
    from sft_dist.runtime.distributed import distributed
    from sft_dist.runtime.watch import watched

    seconds = config.engine.collective_timeout
    opened = loop = None
    with distributed(seconds) as ranks, watched(ranks, seconds) as watch:
        try:
            run_dir, checkpoint, state = starting_point(config, prepared, ranks, watch)
            state = open_run_dir(config, prepared, ranks, run_dir, state)
            opened = stop.run_dir = run_dir
            watch.last_words = lambda: end_stuck(watch, ranks, run_dir)
            startup.done("ranks")
            loop = build(config, prepared, ranks, run_dir, stop, checkpoint, state, startup, watch)
            return loop, loop.run(state)
        except BaseException as error:
            shown = fail(error, config, ranks, watch, run_dir=opened, loop=loop)
            if shown is error:
                raise
            raise shown from error


def build(
    config: TrainConfig,
    prepared: "Prepared",
    ranks: "Ranks",
    run_dir: Path,
    stop: "StopRequest",
    checkpoint: Path | None,
    state: "TrainState",
    startup: "StartupTimes",
    watch: "RankWatch",
) -> "TrainingLoop":
    """Observers first (the evaluation engine starts while the model loads), then the engine."""
    from sft_dist.engines.build import build_engine, load_model
    from sft_dist.loop import TrainingLoop
    from sft_dist.resume import recorded_accuracies
    from sft_dist.runtime.distributed import set_group_timeouts

    tracker, evaluations = observers(config, prepared, ranks, run_dir, state, startup)
    startup.done("observers")
    watch.at(state.step, "loading the model")
    model = load_model(
        config,
        checkpoint or prepared.model_dir,
        device=ranks.device,
        stop_token_id=prepared.stop_token_id,
    )
    num_parameters = sum(p.numel() for p in model.parameters())  # an engine may shard them
    startup.done("model")
    watch.at(state.step, "building the engine")
    engine = build_engine(config, model, device=ranks.device)
    set_group_timeouts(config.engine.collective_timeout)
    if checkpoint is not None:
        watch.at(state.step, "loading the optimizer state")
        engine.load_state(checkpoint / "engine")
    startup.done("engine")
    watch.at(state.step, "ready to train")
    logger.info(
        "%s: %d of %d steps done",
        f"resuming from {checkpoint}" if checkpoint else "starting from the base model",
        state.step,
        prepared.plan.total_steps,
    )
    return TrainingLoop(
        config,
        prepared,
        engine=engine,
        num_parameters=num_parameters,
        ranks=ranks,
        run_dir=run_dir,
        tracker=tracker,
        evaluations=evaluations,
        stop=stop,
        watch=watch,
        accuracies=recorded_accuracies(run_dir),
    )


def observers(
    config: TrainConfig,
    prepared: "Prepared",
    ranks: "Ranks",
    run_dir: Path,
    state: "TrainState",
    startup: "StartupTimes",
) -> tuple["Tracker", "Evaluations"]:
    """The record and the evaluations on rank 0; objects that do nothing on the others."""
    from sft_dist.evaluation.session import EvaluationSession, NoEvaluations
    from sft_dist.tracking.tracker import NullTracker, RunTracker

    if not ranks.is_zero:
        return NullTracker(), NoEvaluations()
    tracker = RunTracker(
        config,
        run_dir,
        run_id=state.wandb_run_id,
        attempt=state.attempt,
        step=state.step,
        total_steps=prepared.plan.total_steps,
        startup=startup,
    )
    if config.evaluation.eval_placement == "off":
        return tracker, NoEvaluations()
    evaluations = EvaluationSession(
        config,
        run_dir,
        model_dir=prepared.model_dir,
        examples=prepared.evaluation,
        tokenizer=prepared.tokenizer,
        stop_token_id=prepared.stop_token_id,
        beside_training_on_cpu=ranks.device.type == "cpu",
    )
    return tracker, evaluations


if __name__ == "__main__":
    main()
