"""The recipe, top to bottom: `python -m sft_dist.train`, `sft-train`, or either under torchrun.

    torchrun --nproc_per_node 8 -m sft_dist.train --model_path DIR --data_path DIR

Heavy imports stand inside the functions: `--help` and faults of the configuration answer at once.
"""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sft_dist.arguments import parse_train_config
from sft_dist.config import TrainConfig
from sft_dist.engines.ds_config import ds_config_faults
from sft_dist.errors import ConfigError, SftDistError
from sft_dist.runtime.launch_environment import rank_from_environment, world_size_from_environment
from sft_dist.runtime.run_directory import (
    lock_run_dir,
    new_run_dir,
    write_run_files,
    write_status,
)
from sft_dist.validation import config_faults

if TYPE_CHECKING:
    from sft_dist.evaluation.session import Evaluations
    from sft_dist.loop import TrainingLoop
    from sft_dist.preparation import Prepared
    from sft_dist.runtime.distributed import Ranks
    from sft_dist.runtime.stopping import StopRequest
    from sft_dist.tracking.startup import StartupTimes
    from sft_dist.tracking.tracker import Tracker
    from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)

STARTED = time.time()
LAST_SAVE_SECONDS = 120.0
"""After an error, how long a checkpoint that is being written may take to its end."""


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
        sys.exit(2 if is_config else 1)


def train(config: TrainConfig) -> None:
    """Run the job that `config` describes, from a fresh start or from a checkpoint."""
    from sft_dist.preparation import prepare
    from sft_dist.runtime.distributed import (
        distributed,
        share_cores,
        use_deterministic_kernels,
    )
    from sft_dist.runtime.stopping import stop_on_signals, stop_with_parent
    from sft_dist.tracking.console import set_up_logging
    from sft_dist.tracking.startup import StartupTimes

    startup = StartupTimes()
    set_up_logging(rank=rank_from_environment(), debug=config.tracking.debug)
    stop_with_parent()
    share_cores(beside_evaluation=config.evaluation.eval_placement == "shared")
    if config.engine.deterministic:
        use_deterministic_kernels()
    startup.done("imports")
    prepared = prepare(config, world_size=world_size_from_environment())
    startup.done("data")
    with distributed() as ranks:
        run_dir, checkpoint, state = starting_point(config, prepared, ranks)
        open_run_dir(config, prepared, ranks, run_dir)
        startup.done("ranks")
        with stop_on_signals(run_dir) as stop:
            loop = None
            try:
                loop = build(config, prepared, ranks, run_dir, stop, checkpoint, state, startup)
                state = loop.run(state)
            except BaseException as error:
                give_up(error, ranks, run_dir, loop)
                raise
    if ranks.is_zero:
        # The ranks have left the process group: nobody waits for the evaluations but rank 0.
        with stop_on_signals(run_dir) as stop:
            finish(loop, state, run_dir, stop)


def starting_point(
    config: TrainConfig, prepared: "Prepared", ranks: "Ranks"
) -> tuple[Path, Path | None, "TrainState"]:
    """Run directory, checkpoint to resume and state to go on from; nothing is written yet.

    Raises:
        CheckpointError, ConfigError: on every rank, with the run directory as it was.
    """
    from sft_dist.resume import checkpoint_to_resume, starting_state
    from sft_dist.runtime.distributed import broadcast_text

    run_dir = Path(broadcast_text(str(new_run_dir(config)) if ranks.is_zero else None))
    checkpoint = checkpoint_to_resume(config, run_dir, ranks)
    return run_dir, checkpoint, starting_state(config, prepared, checkpoint)


def open_run_dir(config: TrainConfig, prepared: "Prepared", ranks: "Ranks", run_dir: Path) -> None:
    """Rank 0 takes the run directory for itself and writes what runs there."""
    from sft_dist.checkpoint import remove_leftovers
    from sft_dist.runtime.distributed import broadcast_text
    from sft_dist.runtime.stopping import drop_stale_stop
    from sft_dist.tracking.console import log_to_file

    fault = ""
    if ranks.is_zero:
        fault = lock_run_dir(run_dir) or ""
        if not fault:
            batch_size = prepared.plan.global_batch_size
            write_run_files(run_dir, config, ranks.world_size, global_batch_size=batch_size)
            write_status(run_dir, "running", "training")
            remove_leftovers(run_dir)
            drop_stale_stop(run_dir, since=STARTED)
    fault = broadcast_text(fault)
    if fault:
        raise ConfigError([fault])
    log_to_file(run_dir, ranks.rank)
    logger.info("run directory: %s", run_dir)


def build(
    config: TrainConfig,
    prepared: "Prepared",
    ranks: "Ranks",
    run_dir: Path,
    stop: "StopRequest",
    checkpoint: Path | None,
    state: "TrainState",
    startup: "StartupTimes",
) -> "TrainingLoop":
    """Observers first (the evaluation engine starts while the model loads), then the engine."""
    from sft_dist.engines.build import build_engine, load_model
    from sft_dist.loop import TrainingLoop
    from sft_dist.resume import recorded_accuracies

    tracker, evaluations = observers(config, prepared, ranks, run_dir, state, startup)
    startup.done("observers")
    model = load_model(
        config,
        checkpoint or prepared.model_dir,
        device=ranks.device,
        stop_token_id=prepared.stop_token_id,
    )
    num_parameters = sum(p.numel() for p in model.parameters())  # an engine may shard them
    startup.done("model")
    engine = build_engine(config, model, device=ranks.device)
    if checkpoint is not None:
        engine.load_state(checkpoint / "engine")
    startup.done("engine")
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


def finish(loop: "TrainingLoop", state: "TrainState", run_dir: Path, stop: "StopRequest") -> None:
    """Wait for open evaluations, report them, and say how the run ended."""
    done = state.step == loop.plan.total_steps
    deadline = time.monotonic() + loop.config.evaluation.eval_drain_timeout
    if done:
        write_status(run_dir, "running", "waiting for evaluations", step=state.step)
        for result in loop.evaluations.drain(
            lambda: stop.requested() or time.monotonic() > deadline
        ):
            loop.report([result])
    reading = loop.evaluations.steps_reading()
    loop.saving.tidy(reading, loop.accuracies)
    loop.evaluations.close()
    loop.tracker.close()
    if done and not (reading and stop.requested()):
        tell_finished(run_dir, state.step, unscored=sorted({*loop.failed_evaluations, *reading}))
    else:  # also in the wait for evaluations: a resumed run has only them to do
        reason = loop.stop.reason or stop.reason or "a rank was asked to stop"
        write_status(run_dir, "requeue", reason, step=state.step)
        logger.info(
            "stopped at step %d (%s); continue with --resume_from_checkpoint latest "
            "--output_dir %s", state.step, reason, run_dir,
        )  # fmt: skip
    loop.page.finish()
    logger.info("report: %s", run_dir / "report.html")


def tell_finished(run_dir: Path, step: int, *, unscored: list[int]) -> None:
    """Say that all steps are done, and of which steps there will be no result."""
    reason = "all steps are done"
    if unscored:  # said at the end, where it is read, and no reason to train again
        reason += f"; no result of the evaluations of steps {unscored}, see logs/"
    write_status(run_dir, "finished", reason, step=step, unscored=unscored)
    logger.info("finished: %d steps (%s); results in %s", step, reason, run_dir)


def give_up(
    error: BaseException, ranks: "Ranks", run_dir: Path, loop: "TrainingLoop | None"
) -> None:
    """Leave a readable end after a failure; no collective, the other ranks may not be there."""
    from sft_dist.reporting.writer import write_report

    if ranks.is_zero:
        try:
            write_status(run_dir, "failed", f"{type(error).__name__}: {error}")
        except OSError as full:  # perhaps what ended the run: that error is the one to show
            logger.error("status.json cannot be written: %s", full)
        write_report(run_dir)
    if loop is not None:
        loop.saving.close(LAST_SAVE_SECONDS)
        loop.evaluations.close()
        loop.tracker.close(failed=True)


if __name__ == "__main__":
    main()
