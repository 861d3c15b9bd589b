"""How a run ends: finished, to be continued, or failed with the cause in words."""

import logging
import sys
import time
from pathlib import Path

from sft_dist.checkpoint import list_checkpoints
from sft_dist.config import TrainConfig
from sft_dist.errors import OutOfMemoryError, RanksError
from sft_dist.loop import TrainingLoop
from sft_dist.out_of_memory import is_out_of_memory, memory_advice
from sft_dist.reporting.writer import write_report
from sft_dist.runtime.distributed import Ranks
from sft_dist.runtime.launch_environment import tell_launcher
from sft_dist.runtime.lost_ranks import is_lost_rank, lost_rank_error
from sft_dist.runtime.run_directory import write_status
from sft_dist.runtime.stopping import StopRequest
from sft_dist.runtime.watch import RankWatch
from sft_dist.tracking.closing import closing_table
from sft_dist.tracking.record import read_rows
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)

LAST_SAVE_SECONDS = 120.0
"""After an error, how long a checkpoint that is being written may take to its end."""
LOST_SAVE_SECONDS = 30.0
"""The same when a rank is lost: it ends in time, or waits for the part of that rank for ever."""
AFTER_THE_FIRST_SECONDS = 1.1
"""torchrun takes the earliest error for the cause, by whole seconds, and the lowest rank's of
equals: a rank that only sees that another has left tells its error at least a second later."""


def finish(loop: TrainingLoop, state: TrainState, run_dir: Path, stop: StopRequest) -> None:
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
        reason = stop.reason or "a rank was asked to stop"
        write_status(run_dir, "requeue", reason, step=state.step)
        logger.info(
            "stopped at step %d (%s); continue with --resume_from_checkpoint latest "
            "--output_dir %s", state.step, reason, run_dir,
        )  # fmt: skip
    loop.page.finish()
    logger.info("what it came to:\n%s", closing_table(read_rows(run_dir)))
    logger.info("report: %s", run_dir / "report.html")


def tell_finished(run_dir: Path, step: int, *, unscored: list[int]) -> None:
    """Say that all steps are done, and of which steps there will be no result."""
    reason = "all steps are done"
    if unscored:  # said at the end, where it is read, and no reason to train again
        reason += f"; no result of the evaluations of steps {unscored}, see logs/"
    write_status(run_dir, "finished", reason, step=step, unscored=unscored)
    logger.info("finished: %d steps (%s); results in %s", step, reason, run_dir)


def fail(
    error: BaseException,
    config: TrainConfig,
    ranks: Ranks,
    watch: RankWatch,
    *,
    run_dir: Path | None,
    loop: TrainingLoop | None,
) -> BaseException:
    """End a run in which `error` was raised; the error to show instead.

    The rank whose own error it is speaks first, to the launcher and to the other ranks: they will
    only see that it has left. `run_dir` is None as long as nothing was written there.
    """
    watch.stop()
    if isinstance(error, Exception) and not is_lost_rank(error):
        tell_launcher(error)
        watch.tell_failure(f"{type(error).__name__}: {error}")
    shown = error_to_show(error, config, watch, run_dir)
    if run_dir is not None:
        give_up(shown, ranks, run_dir, loop)
    if isinstance(shown, RanksError):
        time.sleep(AFTER_THE_FIRST_SECONDS)
    return shown


def error_to_show(
    error: BaseException, config: TrainConfig, watch: RankWatch, run_dir: Path | None
) -> BaseException:
    """`error`, or what a failed collective or a full memory means."""
    if is_lost_rank(error):
        logger.debug("a collective failed", exc_info=error)
        return lost_rank(watch, run_dir)
    if is_out_of_memory(error):
        advice = memory_advice(config)
        return OutOfMemoryError(f"memory ran out ({watch.where()}): {error}; {advice}")
    return error


def lost_rank(watch: RankWatch, run_dir: Path | None) -> RanksError:
    """The error of a rank whose wait for the others has failed."""
    try:
        newest = list_checkpoints(run_dir)[-1:] if run_dir is not None else []
    except OSError:  # the file system may have gone with the ranks
        newest = []
    return lost_rank_error(watch, run_dir, newest=newest[0] if newest else None)


def end_stuck(watch: RankWatch, ranks: Ranks, run_dir: Path) -> None:
    """Tell the end of a process whose training waits for ranks that do not come."""
    error = lost_rank(watch, run_dir)
    sys.stderr.write(f"rank {ranks.rank}: error: {error}\n")
    tell_launcher(error)
    give_up(error, ranks, run_dir, None)


def give_up(error: BaseException, ranks: Ranks, run_dir: Path, loop: TrainingLoop | None) -> None:
    """Leave a readable end after a failure; no collective, the other ranks may not be there."""
    if ranks.is_zero:
        write_status(run_dir, "failed", f"{type(error).__name__}: {error}")
        write_report(run_dir)
    if loop is not None:
        is_lost = isinstance(error, RanksError)
        loop.saving.close(LOST_SAVE_SECONDS if is_lost else LAST_SAVE_SECONDS)
        loop.evaluations.close()
        loop.tracker.close(failed=True)
