"""What happens between two steps: saving, evaluating, stopping. Engine and worker are fakes."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from sft_dist import snapshot_files
from sft_dist.checkpoint import list_checkpoints
from sft_dist.config import from_flat
from sft_dist.data.sampler import BatchPlan
from sft_dist.errors import CheckpointError, NonFiniteError
from sft_dist.evaluation.scoring import EvaluationResult
from sft_dist.loop import TrainingLoop
from sft_dist.preparation import Prepared
from sft_dist.runtime.distributed import Ranks
from sft_dist.runtime.stopping import stop_on_signals
from sft_dist.runtime.watch import RankWatch
from sft_dist.train_state import TrainState
from tests.fake_engine import FakeEngine, FakeTokenizer
from tests.tiny import tiny_examples

RANK = Ranks(0, 0, 1, torch.device("cpu"))


class FakeEvaluations:
    def __init__(self):
        self.submitted = []
        self.results = []

    def submit(self, step, model_dir):
        self.submitted.append((step, model_dir.name))

    def collect(self):
        done, self.results = self.results, []
        return done

    def steps_reading(self):
        return set()


class FakeTracker:
    def __init__(self):
        self.steps = []
        self.evaluations = []

    def log_step(self, row):
        self.steps.append(row)

    def log_evaluation(self, row, samples):
        self.evaluations.append(row)


@pytest.fixture
def make_loop(tmp_path):
    """A loop over 20 examples in batches of 4: 5 steps an epoch, 10 in all."""
    model_dir = tmp_path / "base"
    model_dir.mkdir()
    shape = {"model_type": "qwen2", "num_hidden_layers": 1, "hidden_size": 8}
    (model_dir / "config.json").write_text(json.dumps(shape))
    run_dir = tmp_path / "run"
    run_dir.mkdir()

    def make(engine=None, accuracies=None, stop=None, **settings):
        plan = BatchPlan(num_examples=20, global_batch_size=4, num_epochs=2, seed=0)
        prepared = Prepared(
            model_dir=model_dir, tokenizer=FakeTokenizer(), stop_token_id=0,
            examples=tiny_examples(20), evaluation=[], plan=plan, warmup_steps=0, fingerprint="f",
        )  # fmt: skip
        return TrainingLoop(
            from_flat({"save_steps": 4, "eval_steps": 3, **settings}),
            prepared,
            engine=engine or FakeEngine(),
            num_parameters=10,
            ranks=RANK,
            run_dir=run_dir,
            tracker=FakeTracker(),
            evaluations=FakeEvaluations(),
            stop=stop or SimpleNamespace(requested=lambda: False),
            watch=RankWatch(RANK, 1800),
            accuracies=accuracies,
        )

    return make


def fresh(step=0):
    return TrainState(
        step=step, seed=0, global_batch_size=4, num_examples=20, data_fingerprint="f",
        wandb_run_id="w",
    )  # fmt: skip


def saved_steps(loop):
    return [path.name for path in list_checkpoints(loop.run_dir)]


def test_saves_at_its_steps_at_each_epochs_end_and_at_the_last_step(make_loop):
    loop = make_loop(keep_last_n_checkpoints=0)
    assert loop.run(fresh()).step == 10
    assert saved_steps(loop) == [f"checkpoint-{n}" for n in (4, 5, 8, 10)]


def test_evaluates_the_base_model_at_its_steps_and_at_each_epochs_end(make_loop):
    loop = make_loop(keep_last_n_checkpoints=0)
    loop.run(fresh())
    # Each reads weights that retention cannot take away, those of a checkpoint too.
    names = {step: f"step-{step:06d}-attempt-1" for step in (3, 5, 6, 9, 10)}
    assert loop.evaluations.submitted == [(0, "base"), *names.items()]


def test_evaluates_nothing_when_evaluation_is_off(make_loop):
    loop = make_loop(eval_placement="off")
    loop.run(fresh())
    assert loop.evaluations.submitted == []
    assert not (loop.run_dir / ".exports").exists()


def test_every_step_is_logged_with_the_mean_over_the_global_batch(make_loop):
    loop = make_loop()
    loop.run(fresh())
    assert [row["step"] for row in loop.tracker.steps] == list(range(1, 11))
    row = loop.tracker.steps[0]
    assert row["train/loss"] == 2.0
    assert row["train/grad_norm_preclip"] == 5.0
    assert row["train/grad_norm"] == 1.0
    assert row["train/examples"] == 4


def test_an_evaluation_that_comes_in_is_logged_at_its_own_step(make_loop):
    loop = make_loop()
    metrics = {"eval/accuracy": 0.5}
    loop.evaluations.results = [
        EvaluationResult(0, None, metrics),
        EvaluationResult(3, None, error="worker gone"),
    ]
    loop.run(fresh())
    assert loop.tracker.evaluations == [{"eval/step": 0, **metrics}]
    assert loop.failed_evaluations == [3]


def test_the_best_checkpoint_outlives_newer_ones(make_loop):
    loop = make_loop(keep_last_n_checkpoints=1, accuracies={4: 0.9, 5: 0.1})
    loop.run(fresh())
    assert saved_steps(loop) == ["checkpoint-4", "checkpoint-10"]


def test_the_best_checkpoint_goes_when_it_is_not_wanted(make_loop):
    settings = {"keep_last_n_checkpoints": 1, "keep_best": False}
    loop = make_loop(accuracies={4: 0.9, 5: 0.1}, **settings)
    loop.run(fresh())
    assert saved_steps(loop) == ["checkpoint-10"]


def test_the_time_lost_to_saving_is_logged_once(make_loop, monkeypatch):
    loop = make_loop(save_steps=4, eval_placement="off", log_steps=2)
    checkpoint = loop.saving.checkpoint

    def slow(state, **kwargs):
        checkpoint(state, **kwargs)
        loop.saving.stall_seconds = 7.0

    monkeypatch.setattr(loop.saving, "checkpoint", slow)
    loop.run(fresh())
    stalls = [row["perf/save_stall_seconds"] for row in loop.tracker.steps]
    # Saved at 4, 5, 8 and 10; the rows of odd steps are not recorded, and set nothing back.
    assert stalls == [0, 0, 0, 0, 7, 7, 0, 0, 7, 7]


@pytest.fixture
def failing_disk(monkeypatch):
    """Saves of these steps fail as on a full disk."""
    steps = set()
    write = snapshot_files.write_checkpoint

    def fail(run_dir, contents, **kwargs):
        if contents.state.step in steps:
            raise CheckpointError(f"could not write checkpoint-{contents.state.step}: disk full")
        return write(run_dir, contents, **kwargs)

    monkeypatch.setattr(snapshot_files, "write_checkpoint", fail)
    return steps


@pytest.mark.parametrize("async_save", [True, False])
def test_a_save_that_fails_stops_the_run_within_a_step(make_loop, failing_disk, async_save):
    failing_disk.add(4)
    loop = make_loop(async_save=async_save, save_steps=2, eval_placement="off")
    with pytest.raises(CheckpointError, match="checkpoint-4"):
        loop.run(fresh())
    assert len(loop.tracker.steps) in ((4, 5) if async_save else (4,))
    assert saved_steps(loop) == ["checkpoint-2"]


def test_a_save_that_fails_is_tried_again_at_the_next(make_loop, failing_disk):
    failing_disk.update((4, 5))
    loop = make_loop(on_save_error="continue", keep_last_n_checkpoints=0)
    assert loop.run(fresh()).step == 10
    assert saved_steps(loop) == ["checkpoint-8", "checkpoint-10"]
    assert loop.failed_evaluations == [5]


@pytest.mark.parametrize("on_save_error", ["stop", "continue"])
def test_a_run_whose_last_save_fails_has_failed(make_loop, failing_disk, on_save_error):
    failing_disk.add(10)
    loop = make_loop(on_save_error=on_save_error)
    with pytest.raises(CheckpointError, match="checkpoint-10"):
        loop.run(fresh())


def test_a_stop_in_a_step_saves_after_it(make_loop, tmp_path):
    with stop_on_signals(tmp_path) as stop:
        loop = make_loop(stop=stop)
        loop.tracker.log_step = lambda row: os.kill(os.getpid(), signal.SIGTERM)
        state = loop.run(fresh())
    assert state.step == 1
    assert saved_steps(loop) == ["checkpoint-1"]


def test_a_stop_in_the_start_up_leaves_without_a_step_and_without_a_save(make_loop, tmp_path):
    with stop_on_signals(tmp_path) as stop:
        loop = make_loop(stop=stop)
        os.kill(os.getpid(), signal.SIGTERM)
        state = loop.run(fresh(step=7))
    assert state.step == 7
    assert saved_steps(loop) == []


def test_a_time_limit_that_is_too_short_still_leaves_time_for_a_step(make_loop, tmp_path):
    with stop_on_signals(tmp_path) as stop:
        state = make_loop(stop=stop, max_runtime=1).run(fresh())
    assert state.step == 1


def test_it_saves_and_leaves_before_the_time_is_up(make_loop, tmp_path, monkeypatch):
    ages = iter([10.0, 70.0, 95.0, 101.0])
    monkeypatch.setattr("sft_dist.loop.process_age", lambda: next(ages))
    with stop_on_signals(tmp_path) as stop:
        loop = make_loop(stop=stop, max_runtime=100)
        loop.saving.expected_seconds = 20.0
        state = loop.run(fresh())
    assert state.step == 3  # 70 s and a save are within 100, 95 s and a save are not
    assert saved_steps(loop)[-1] == "checkpoint-3"
    assert stop.reason.startswith("--max_runtime 100")


def test_a_save_file_asks_for_a_checkpoint_now(make_loop):
    loop = make_loop(keep_last_n_checkpoints=0)
    (loop.run_dir / "SAVE").touch()
    loop.run(fresh())
    assert "checkpoint-1" in saved_steps(loop)


@pytest.mark.parametrize(("step", "also_saved"), [(2, ["checkpoint-2"]), (4, [])])
def test_a_save_file_in_a_step_asks_for_its_checkpoint_unless_it_is_saved_anyway(
    make_loop, step, also_saved
):
    loop = make_loop(keep_last_n_checkpoints=0)
    request = loop.run_dir / "SAVE"
    loop.tracker.log_step = lambda row: request.touch() if row["step"] == step else None
    loop.run(fresh())
    usual = ["checkpoint-4", "checkpoint-5", "checkpoint-8", "checkpoint-10"]
    assert saved_steps(loop) == [*also_saved, *usual]
    assert not request.exists()


def test_evaluations_that_a_killed_attempt_did_not_ask_for_are_asked_for(make_loop):
    first = make_loop(keep_last_n_checkpoints=0)
    first.run(fresh())
    resumed = make_loop(accuracies={0: 0.1, 5: 0.2, 9: 0.3})
    resumed.run(fresh(step=10))
    # 4 and 8 were saved and are not steps of evaluation
    assert resumed.evaluations.submitted == [
        (3, "step-000003-attempt-1"), (6, "step-000006-attempt-1"), (10, "step-000010-attempt-1"),
    ]  # fmt: skip


def test_a_damaged_checkpoint_that_is_reached_again_is_replaced(make_loop):
    first = make_loop()
    first.run(fresh())
    path = first.run_dir / "checkpoint-10/model.safetensors"
    original = path.read_bytes()
    path.write_bytes(b"damaged 10")
    again = make_loop()
    again.engine.steps = 9
    again.run(fresh(step=9))
    assert path.read_bytes() == original
    assert (first.run_dir / ".superseded/checkpoint-10.0").is_dir()


def test_a_gradient_that_is_not_finite_ends_the_run_and_saves_nothing(make_loop):
    loop = make_loop(engine=FakeEngine(not_applied={1}))
    with pytest.raises(NonFiniteError, match=r"step 1: .*train/x/"):
        loop.run(fresh())
    assert saved_steps(loop) == []


def test_a_step_that_was_left_out_counts_and_has_no_loss_in_its_row(make_loop):
    loop = make_loop(engine=FakeEngine(not_applied={3, 4}), on_nonfinite="skip")
    state = loop.run(fresh())
    rows = loop.tracker.steps
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["step"] for row in rows if row.get("train/skipped")] == [3, 4]
    assert [row["step"] for row in rows if "train/loss" not in row] == [3, 4]
    assert state.target_tokens == sum(
        row["train/target_tokens"] for row in rows if "train/loss" in row
    )
