"""Steps that went wrong: which end the run, which are told, and on which rank."""

import math

import pytest

from sft_dist.engines.protocol import MicroBatchLoss, StepResult
from sft_dist.errors import NonFiniteError, OutOfMemoryError
from sft_dist.loss_spikes import FEWEST
from sft_dist.step_faults import MOST_SKIPPED, StepFaults

BAD_LOSS = StepResult(math.nan, math.nan, 0, 0, math.nan, False, "rank 1: loss nan in ... of b, c")
BAD_GRADIENT = StepResult(2.0, 2.0, 0, 0, math.inf, False)


def good(*losses):
    named = tuple(MicroBatchLoss(loss, (f"of {loss}",)) for loss in losses)
    return StepResult(2.0, 2.0, 0, 0, 1.0, True, "", named)


def look(faults, step, result, loss=1.0):
    faults.look(step, result, loss=loss, example_ids=["a", "b"])


@pytest.mark.parametrize(
    ("result", "what"), [(BAD_LOSS, "rank 1: loss nan"), (BAD_GRADIENT, "norm inf.*rank 3.*a, b")]
)
def test_a_step_without_an_update_ends_the_run_by_default(configured, result, what):
    with pytest.raises(NonFiniteError, match=rf"step 7: .*{what}.*--on_nonfinite skip"):
        look(StepFaults(configured(), rank=3), 7, result)


def test_or_is_left_out_with_a_warning_once(configured, caplog):
    for rank in range(3):
        look(StepFaults(configured(on_nonfinite="skip"), rank=rank), 7, BAD_LOSS)
    assert len(caplog.messages) == 1
    assert "step 7" in caplog.messages[0]
    assert "rank 1: loss nan" in caplog.messages[0]


def test_each_rank_tells_its_examples_of_a_bad_gradient(configured, caplog):
    for rank in range(3):
        look(StepFaults(configured(on_nonfinite="skip"), rank=rank), 7, BAD_GRADIENT)
    assert len(caplog.messages) == 3


def test_many_in_a_row_end_the_run(configured):
    faults = StepFaults(configured(on_nonfinite="skip"), rank=0)
    for step in range(1, MOST_SKIPPED):
        look(faults, step, BAD_LOSS)
    with pytest.raises(NonFiniteError, match="the weights are broken"):
        look(faults, MOST_SKIPPED, BAD_LOSS)


def test_a_good_step_between_them_starts_the_count_again(configured):
    faults = StepFaults(configured(on_nonfinite="skip"), rank=0)
    for step in range(3 * MOST_SKIPPED):
        look(faults, step, BAD_LOSS if step % MOST_SKIPPED else good())


def spike(configured, rank, *micro_batches):
    faults = StepFaults(configured(), rank=rank)
    for step in range(FEWEST):
        look(faults, step, good())
    look(faults, 99, good(*micro_batches), loss=5.0)


def test_a_spike_is_told_with_the_micro_batch_that_made_it(configured, caplog):
    spike(configured, 0, 4.0, 9.0, 6.0)
    first, second = caplog.messages
    assert "step 99: loss spike, 5.0000; usual is 1.0000" in first
    assert "9.0000 in the micro-batch of of 9.0" in second


def test_a_rank_that_had_no_part_in_it_says_nothing(configured, caplog):
    spike(configured, 1, 4.0)
    spike(configured, 2)
    assert caplog.messages == []
    spike(configured, 3, 6.0)
    assert len(caplog.messages) == 1


def test_memory_that_ran_out_is_told_with_step_rank_and_what_to_lower(configured):
    faults = StepFaults(configured(), rank=2)
    found = r"step 7, rank 2: in the row; what lowers it: --max_tokens_per_microbatch 2048"
    with pytest.raises(OutOfMemoryError, match=found), faults.named(7):
        raise OutOfMemoryError("in the row")
