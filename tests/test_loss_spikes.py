"""Which losses are spikes."""

import math

from sft_dist.loss_spikes import DEVIATIONS, FEWEST, WINDOW, LossSpikes


def after(losses):
    spikes = LossSpikes()
    assert [spikes.judge(loss) for loss in losses] == [None] * len(losses)
    return spikes


def noisy(count, level=1.0):
    return [level + 0.05 * math.sin(7 * i) for i in range(count)]


def test_a_loss_far_above_the_others_is_one_and_what_was_usual_is_said():
    told = after(noisy(50)).judge(3.0)
    assert told is not None
    assert "in 50 steps" in told


def test_a_hard_batch_is_none():
    assert after(noisy(50)).judge(1.2) is None


def test_nothing_is_judged_at_the_beginning():
    assert after(noisy(FEWEST - 1)).judge(100.0) is None
    assert after(noisy(FEWEST)).judge(100.0) is not None


def test_one_spike_does_not_hide_the_next():
    spikes = after(noisy(50))
    assert spikes.judge(50.0) is not None
    assert spikes.judge(50.0) is not None


def test_a_new_level_becomes_usual():
    spikes = after(noisy(WINDOW))
    verdicts = [spikes.judge(loss) for loss in noisy(WINDOW, level=4.0)]
    assert verdicts[0] is not None
    assert verdicts[-1] is None


def test_where_losses_barely_differ_a_little_more_is_no_spike():
    assert after([1.0] * 50).judge(1.1) is None
    assert after([1.0] * 50).judge(1.0 + DEVIATIONS * 0.03) is not None
