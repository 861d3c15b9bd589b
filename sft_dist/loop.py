"""The training loop: one global batch a step; saving, evaluating and stopping between two steps."""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sft_dist.checkpoint import checkpoint_step, list_checkpoints
from sft_dist.config import TrainConfig
from sft_dist.data.prefetch import BatchBuilder, BatchLoader, StepBatch
from sft_dist.engines.protocol import Engine, StepResult
from sft_dist.evaluation.cost import EvaluationCost
from sft_dist.evaluation.exports import list_exports
from sft_dist.evaluation.scoring import EvaluationResult
from sft_dist.evaluation.session import Evaluations
from sft_dist.normalization import LossNormalization
from sft_dist.preparation import Prepared
from sft_dist.reporting.writer import BackgroundReport
from sft_dist.runtime.distributed import Ranks, any_ranks
from sft_dist.runtime.stopping import StopRequest, take_save_request
from sft_dist.runtime.watch import RankWatch
from sft_dist.saving import Saving
from sft_dist.schedule import learning_rate_at
from sft_dist.step_faults import StepFaults
from sft_dist.step_rows import StepRows
from sft_dist.tracking.startup import process_age
from sft_dist.tracking.tracker import Tracker
from sft_dist.train_state import TrainState

logger = logging.getLogger(__name__)


class TrainingLoop:
    """What the steps of a run share. `run` takes it to the last step or to an agreed stop."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        *,
        engine: Engine,
        num_parameters: int,
        ranks: Ranks,
        run_dir: Path,
        tracker: Tracker,
        evaluations: Evaluations,
        stop: StopRequest,
        watch: RankWatch,
        accuracies: dict[int, float] | None = None,
    ) -> None:
        """`accuracies` are those that earlier attempts recorded, by step."""
        self.config, self.prepared, self.plan = config, prepared, prepared.plan
        self.engine, self.ranks, self.run_dir = engine, ranks, run_dir
        self.tracker, self.evaluations, self.stop = tracker, evaluations, stop
        self.watch = watch
        self.accuracies = dict(accuracies or {})
        self.failed_evaluations: list[int] = []
        self.evaluation_cost = EvaluationCost()
        self.page = BackgroundReport(run_dir)
        self._batches = BatchLoader(self._batch_builder(), total_steps=self.plan.total_steps)
        self.saving = Saving(
            config,
            engine=engine,
            tokenizer=prepared.tokenizer,
            num_parameters=num_parameters,
            ranks=ranks,
            run_dir=run_dir,
            evaluations=evaluations,
            on_lost_evaluation=self.failed_evaluations.append,
        )
        self._faults = StepFaults(config, rank=ranks.rank)
        self._longest_step = 0.0
        self._rows = StepRows(
            config,
            self.plan,
            model_dir=prepared.model_dir,
            num_parameters=num_parameters,
            ranks=ranks,
        )

    def run(self, state: TrainState) -> TrainState:
        """Train to the end of the plan, or until all ranks agree to stop; the state reached."""
        self._submit_missed(state)
        with closing(self._batches):
            begun = state.step
            while state.step < self.plan.total_steps:
                is_new = state.step > begun  # else there is nothing to save
                stop, save = self._agreed(may_save=is_new)
                if is_new and (stop or save):
                    self._save(state)
                if stop:
                    break
                state = self.step(state)
                self.watch.at(state.step, "saving or reporting")
                self._save_and_evaluate(state)
                with self.evaluation_cost.timed():
                    self.report(self.evaluations.collect())
            self.watch.at(state.step, "waiting for the last save")
            self.saving.finish()
        if self.config.evaluation.eval_placement != "off":
            logger.info("%s", self.evaluation_cost.describe())
        return state

    def step(self, state: TrainState) -> TrainState:
        """One update from one global batch."""
        began = time.monotonic()
        self.watch.at(state.step + 1, "waiting for its batch")
        batch = self._batches.take(state.step)
        self.watch.at(state.step + 1, "computing")
        waited = time.monotonic() - began
        rate = learning_rate_at(
            state.step,
            peak=self.config.optimizer.learning_rate,
            warmup_steps=self.prepared.warmup_steps,
            total_steps=self.plan.total_steps,
        )
        result = self._train_step(state.step + 1, batch, rate)
        state = state.advanced(batch.num_target_tokens if result.applied else 0)
        seconds = time.monotonic() - began
        self._longest_step = max(self._longest_step, seconds)
        self.tracker.log_step({
            **self._rows.learning(state, result, batch, rate),
            **self._rows.performance(batch, seconds=seconds, waited=waited),
            "perf/save_stall_seconds": self.saving.stall_seconds,
            "perf/evaluation_seconds": self.evaluation_cost.take(),
        })  # fmt: skip
        if state.step % self.config.tracking.log_steps == 0:
            self.saving.stall_seconds = 0.0
        return state

    def report(self, results: Sequence[EvaluationResult]) -> None:
        """Log finished evaluations, each at its own step."""
        for result in results:
            if result.error is not None:
                logger.error("evaluation of step %d failed: %s", result.step, result.error)
                self.failed_evaluations.append(result.step)
                continue
            self.tracker.log_evaluation(result.row, result.samples)
            if "eval/accuracy" in result.metrics:  # of the training prompt
                self.accuracies[result.step] = result.metrics["eval/accuracy"]
        if results:  # none on ranks other than 0
            self.page.refresh()

    def _train_step(self, number: int, batch: StepBatch, rate: float) -> StepResult:
        with self._faults.named(number):
            result = self.engine.train_step(batch.micro_batches, batch.normalizer, rate)
        self._faults.look(
            number,
            result,
            loss=result.loss_sum / batch.num_target_tokens,
            example_ids=[i for mine in batch.micro_batches for i in mine.example_ids],
        )
        return result

    def _save_and_evaluate(self, state: TrainState) -> None:
        step = state.step
        due = self._evaluation_is_due(step)
        if self._is_milestone(step) or step % self.config.checkpoint.save_steps == 0:
            self._save(state, evaluate=due)
        elif due:
            with self.evaluation_cost.timed():
                self.saving.export(state)

    def _evaluation_is_due(self, step: int) -> bool:
        settings = self.config.evaluation
        if step == 0 or settings.eval_placement == "off":
            return settings.eval_at_start and settings.eval_placement != "off"
        return self._is_milestone(step) or step % settings.eval_steps == 0

    def _is_milestone(self, step: int) -> bool:
        return self.plan.is_epoch_end(step) or step == self.plan.total_steps

    def _submit_missed(self, state: TrainState) -> None:
        """Ask for the evaluations up to here that have no result: none when all went well.

        A run may have been killed between saving weights and asking for their evaluation. One
        that is still open is asked for again at no cost: the same request is done once.
        """
        weights = {0: self.prepared.model_dir}
        weights |= {checkpoint_step(path): path for path in list_checkpoints(self.run_dir)}
        weights |= list_exports(self.run_dir)
        for step, path in sorted(weights.items()):
            due = step <= state.step and self._evaluation_is_due(step)
            if due and step not in self.accuracies:
                self.evaluations.submit(step, path)

    def _save(self, state: TrainState, *, evaluate: bool = False) -> None:
        self.saving.checkpoint(state, evaluate=evaluate, known=self._known)

    def _known(self) -> tuple[set[int], dict[int, float]]:
        """Steps being evaluated, and the accuracies of those that are so no more."""
        reading = self.evaluations.steps_reading()
        self.report(self.evaluations.collect())
        return reading, self.accuracies

    def _agreed(self, *, may_save: bool) -> tuple[bool, bool]:
        """Whether to stop here, and whether to save: one exchange a step. Collective.

        A wish to save at a step that was exported for its evaluation has the weights written twice.

        Raises:
            CheckpointError: on all ranks, when a save has failed and that stops the run.
        """
        with self.evaluation_cost.timed():  # asks for the evaluation of what has been written
            self.saving.poll()
        self._watch_the_time()
        wanted = may_save and self.ranks.is_zero and take_save_request(self.run_dir)
        mine = self.stop.requested(), self.saving.has_failed(), wanted
        stop, failed, save = any_ranks(mine, self.ranks.device)
        if stop or failed:
            self.saving.settle()
        return stop, save

    def _watch_the_time(self) -> None:
        """Ask to stop while there is time for one more step and a save before `--max_runtime`.

        Not before the first step: an attempt that does none would be started again for ever.
        """
        limit = self.config.checkpoint.max_runtime
        if limit is not None and self._longest_step > 0:
            still_needed = self._longest_step + self.saving.expected_seconds
            if process_age() + still_needed > limit:
                self.stop.ask(f"--max_runtime {limit}: {still_needed:.0f} s kept for the save")

    def _batch_builder(self) -> BatchBuilder:
        return BatchBuilder(
            examples=self.prepared.examples,
            plan=self.plan,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            max_tokens=self.config.max_tokens_per_microbatch(),
            packing=self.config.batch.packing,
            normalization=LossNormalization(
                self.config.batch.loss_normalization, self.config.batch.loss_constant
            ),
            device=self.ranks.device,
        )
