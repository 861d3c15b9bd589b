"""The collector pauses during imports, and works afterwards, whatever happened."""

import gc

import pytest

from sft_dist.garbage import collector_paused


def test_nothing_is_collected_inside():
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_does_not_leave_it_off():
    with pytest.raises(ImportError), collector_paused():
        raise ImportError
    assert gc.isenabled()
