"""Which rank says what on the screen."""

import logging

import pytest

from sft_dist.tracking.console import SAME_ON_ALL_RANKS, set_up_logging

NAMES = ("sft_dist", "__main__", *SAME_ON_ALL_RANKS)


@pytest.fixture(autouse=True)
def as_it_was():
    levels = {name: logging.getLogger(name).level for name in NAMES}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def heard(name, level):
    return logging.getLogger(name).isEnabledFor(level)


def test_rank_0_tells_what_goes_on_and_every_warning():
    set_up_logging(rank=0)
    assert heard("sft_dist.loop", logging.INFO)
    assert heard("sft_dist.data.tokenization", logging.WARNING)


def test_another_rank_warns_of_what_is_its_own_only():
    set_up_logging(rank=1)
    assert not heard("sft_dist.loop", logging.INFO)
    assert heard("sft_dist.loop", logging.WARNING)
    assert not heard("sft_dist.data.tokenization", logging.WARNING)
    assert heard("sft_dist.data.tokenization", logging.ERROR)
