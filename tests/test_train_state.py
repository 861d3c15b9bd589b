"""What a checkpoint says about where the run stood, and when a run may go on from it."""

from dataclasses import replace

import numpy as np
import pytest

from sft_dist.data.tokenization import TokenizedExample
from sft_dist.train_state import TrainState, data_fingerprint, resume_faults

STATE = TrainState(
    seed=42, global_batch_size=8, num_examples=100, data_fingerprint="abc", wandb_run_id="run1"
)


def example(name="a", ids=(1, 2, 3), prompt_length=1):
    return TokenizedExample(name, np.array(ids), prompt_length)


def test_a_fresh_state_is_the_base_model_at_the_first_attempt():
    assert (STATE.step, STATE.target_tokens, STATE.attempt) == (0, 0, 1)


def test_an_update_counts_one_step_and_its_tokens():
    state = STATE.advanced(10).advanced(5)
    assert (state.step, state.target_tokens) == (2, 15)
    assert replace(state, step=0, target_tokens=0) == STATE
    assert STATE.step == 0


def test_the_position_is_the_epoch_and_the_batches_of_it_that_are_done():
    assert replace(STATE, step=0).position(13) == (0, 0)
    assert replace(STATE, step=12).position(13) == (0, 12)
    assert replace(STATE, step=13).position(13) == (1, 0)
    assert replace(STATE, step=30).position(13) == (2, 4)


def test_a_state_survives_the_way_through_a_dictionary():
    state = STATE.advanced(7)
    assert TrainState.from_dict(state.as_dict()) == state


def test_keys_of_a_later_version_are_passed_over():
    assert TrainState.from_dict(STATE.as_dict() | {"from_the_future": 1}) == STATE


def test_the_dictionary_holds_plain_values_only():
    assert {type(value) for value in STATE.as_dict().values()} <= {int, str}


@pytest.mark.parametrize(
    "changed",
    [
        [example("z"), example("b")],
        [example(ids=(1, 2, 4)), example("b")],
        [example(ids=(1, 2)), example("b")],
        [example(prompt_length=2), example("b")],
        [example("b"), example("a")],
        [example("a")],
        [example("a"), example("b"), example("c")],
    ],
    ids=["id", "token", "length", "prompt length", "order", "one less", "one more"],
)
def test_the_fingerprint_changes_with_anything_that_changes_training(changed):
    assert data_fingerprint(changed) != data_fingerprint([example("a"), example("b")])


def test_the_fingerprint_does_not_depend_on_the_integer_type_of_the_tokens():
    narrow = TokenizedExample("a", np.array([1, 2, 3], dtype=np.int32), 1)
    assert data_fingerprint([narrow]) == data_fingerprint([example("a")])


def test_a_token_that_moves_from_one_example_to_the_next_changes_the_fingerprint():
    left = [example("a", (1, 2, 3)), example("b", (4,))]
    right = [example("a", (1, 2)), example("b", (3, 4))]
    assert data_fingerprint(left) != data_fingerprint(right)


def test_the_same_plan_can_be_resumed_at_another_step_and_attempt():
    assert resume_faults(replace(STATE, step=9, attempt=3), STATE) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_fingerprint": "xyz"}, "--data_path"),
        ({"global_batch_size": 16}, "--global_batch_size"),
        ({"seed": 7}, "--seed"),
    ],
)
def test_other_data_batches_or_order_cannot_be_resumed(changes, named):
    faults = resume_faults(STATE, replace(STATE, **changes))
    assert len(faults) == 1
    assert named in faults[0]


def test_all_reasons_against_a_resume_are_told_together():
    planned = replace(STATE, data_fingerprint="xyz", global_batch_size=16, seed=7)
    assert len(resume_faults(STATE, planned)) == 3
