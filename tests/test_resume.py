"""Where a run starts, and what it remembers of its earlier attempts. One process."""

import json
from dataclasses import replace

import pytest
import torch

from sft_dist import resume
from sft_dist.data.sampler import BatchPlan
from sft_dist.errors import CheckpointError, ConfigError
from sft_dist.preparation import Prepared
from sft_dist.resume import (
    ATTEMPT_FILE,
    checkpoint_to_resume,
    next_attempt,
    recorded_accuracies,
    starting_state,
)
from sft_dist.runtime.distributed import Ranks
from sft_dist.tracking.record import FILE_NAME
from sft_dist.train_state import TrainState

RANK_ZERO = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
PREPARED = Prepared(
    model_dir=None, tokenizer=None, stop_token_id=1, examples=(), evaluation=(), warmup_steps=0,
    plan=BatchPlan(num_examples=100, global_batch_size=8, num_epochs=3, seed=42),
    fingerprint="abc",
)  # fmt: skip
SAVED = TrainState(
    step=13, target_tokens=999, attempt=2, seed=42, global_batch_size=8, num_examples=100,
    data_fingerprint="abc", wandb_run_id="run1",
)  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    directory = tmp_path / "checkpoint-13"
    directory.mkdir()
    torch.save(SAVED.as_dict(), directory / "training_state.pt")
    return directory


def write_rows(run_dir, rows):
    (run_dir / FILE_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))


# starting_state


def test_a_fresh_run_starts_at_step_0_of_its_own_plan(configured):
    state = starting_state(configured(), PREPARED, None)
    assert replace(state, wandb_run_id="") == TrainState(
        seed=42, global_batch_size=8, num_examples=100, data_fingerprint="abc", wandb_run_id=""
    )


def test_every_fresh_run_has_its_own_wandb_id(configured):
    found = {starting_state(configured(), PREPARED, None).wandb_run_id for _ in range(3)}
    assert len(found) == 3
    assert all(found)


def test_a_resumed_run_goes_on_as_the_next_attempt_in_the_same_wandb_run(configured, checkpoint):
    assert starting_state(configured(), PREPARED, checkpoint) == replace(SAVED, attempt=3)


def test_a_resumed_run_may_have_another_end(configured, checkpoint):
    longer = replace(PREPARED, plan=replace(PREPARED.plan, num_epochs=9))
    assert starting_state(configured(num_epochs=9), longer, checkpoint).step == 13


def test_all_that_keeps_a_run_from_going_on_is_told_together(configured, checkpoint):
    plan = replace(PREPARED.plan, global_batch_size=16, seed=7)
    other = replace(PREPARED, plan=plan, fingerprint="xyz")
    with pytest.raises(ConfigError) as caught:
        starting_state(configured(seed=7), other, checkpoint)
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert all(flag in text for flag in ("--data_path", "--global_batch_size", "--seed"))


# checkpoint_to_resume


@pytest.fixture
def alone(monkeypatch):
    """A process group of one: what rank 0 says is what it hears."""
    monkeypatch.setattr(resume, "broadcast_text", lambda text: text)


def test_without_resume_nothing_is_looked_for(configured, tmp_path):
    assert checkpoint_to_resume(configured(), tmp_path, RANK_ZERO) is None


def test_latest_with_nothing_there_is_a_fresh_start(configured, tmp_path, alone):
    config = configured(resume_from_checkpoint="latest")
    assert checkpoint_to_resume(config, tmp_path, RANK_ZERO) is None


def test_rank_0_verifies_and_the_others_take_its_word(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "find_checkpoint", lambda *_: tmp_path / "checkpoint-4")
    said = []
    monkeypatch.setattr(resume, "broadcast_text", lambda text: said.append(text) or "heard")
    config = configured(resume_from_checkpoint="latest")
    for ranks in (RANK_ZERO, replace(RANK_ZERO, rank=1)):
        assert checkpoint_to_resume(config, tmp_path, ranks).name == "heard"
    assert said == [str(tmp_path / "checkpoint-4"), None]


def test_a_damaged_checkpoint_is_an_error_on_every_rank(
    configured, tmp_path, checkpoint, monkeypatch
):
    config = configured(resume_from_checkpoint="latest")
    said = []
    monkeypatch.setattr(resume, "broadcast_text", lambda text: said.append(text) or text)
    with pytest.raises(CheckpointError, match=r"checkpoint-13: manifest\.json"):
        checkpoint_to_resume(config, tmp_path, RANK_ZERO)
    monkeypatch.setattr(resume, "broadcast_text", lambda text: said[0])
    with pytest.raises(CheckpointError, match=r"checkpoint-13: manifest\.json"):
        checkpoint_to_resume(config, tmp_path, replace(RANK_ZERO, rank=1))


# recorded_accuracies


def test_accuracies_are_found_by_step(tmp_path):
    write_rows(
        tmp_path,
        [
            {"eval/step": 0, "eval/accuracy": 0.3},
            {"step": 1, "train/loss": 1.0},
            {"eval/step": 8, "eval/accuracy": 0.5},
            {"eval/step": 4, "eval/accuracy": 0.4},
        ],
    )
    assert recorded_accuracies(tmp_path) == {0: 0.3, 4: 0.4, 8: 0.5}


def test_of_a_step_evaluated_twice_the_last_row_counts(tmp_path):
    write_rows(tmp_path, [{"eval/step": 4, "eval/accuracy": a} for a in (0.9, 0.2)])
    assert recorded_accuracies(tmp_path) == {4: 0.2}


def test_evaluations_under_another_prompt_do_not_count(tmp_path):
    rows = [{"eval/step": 4, "eval/accuracy": 0.2}, {"eval/step": 8, "eval/r1_zero/accuracy": 0.9}]
    write_rows(tmp_path, rows)
    assert recorded_accuracies(tmp_path) == {4: 0.2}


def test_a_run_without_an_evaluation_has_no_accuracy(tmp_path):
    assert recorded_accuracies(tmp_path) == {}
    write_rows(tmp_path, [{"step": 1, "train/loss": 1.0}])
    assert recorded_accuracies(tmp_path) == {}


# other data


def test_other_data_are_refused_with_both_fingerprints_and_the_flag(configured, checkpoint):
    other = replace(PREPARED, fingerprint="xyz", plan=replace(PREPARED.plan, num_examples=90))
    with pytest.raises(ConfigError) as caught:
        starting_state(configured(), other, checkpoint)
    (fault,) = caught.value.faults
    for told in ("abc of 100 examples", "xyz of 90", "--allow_data_change"):
        assert told in fault


def test_other_data_that_are_allowed_go_on_at_the_same_step(configured, checkpoint, caplog):
    other = replace(PREPARED, fingerprint="xyz", plan=replace(PREPARED.plan, num_examples=80))
    state = starting_state(configured(allow_data_change=True), other, checkpoint)
    assert state == replace(SAVED, attempt=3, data_fingerprint="xyz", num_examples=80)
    (warning,) = [entry.getMessage() for entry in caplog.records]
    assert "80 examples instead of 100" in warning
    assert "after step 13, batch 4 of epoch 2" in warning  # 10 steps an epoch


def test_the_same_data_are_not_called_changed(configured, checkpoint, caplog):
    starting_state(configured(allow_data_change=True), PREPARED, checkpoint)
    assert caplog.records == []


# next_attempt


def test_starts_are_counted_also_those_that_were_killed_before_a_save(tmp_path):
    fresh = replace(SAVED, step=0, attempt=1, wandb_run_id="new1")
    assert next_attempt(fresh, tmp_path) == fresh
    again = next_attempt(replace(fresh, wandb_run_id="new2"), tmp_path)
    assert (again.attempt, again.wandb_run_id) == (2, "new1")
    resumed = next_attempt(replace(SAVED, attempt=2), tmp_path)
    assert (resumed.attempt, resumed.wandb_run_id) == (3, "run1")


def test_a_note_without_what_it_should_say_is_passed_over(tmp_path):
    (tmp_path / ATTEMPT_FILE).write_text("{}")
    assert next_attempt(SAVED, tmp_path) == SAVED
