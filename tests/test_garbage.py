"""The collector pauses where it is told to, and works afterwards, whatever happened."""

import gc
import io
import subprocess
import sys
import weakref

import pytest

from sft_dist.garbage import collections_put_off, collector_paused


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


def test_what_was_imported_inside_is_left_out_of_later_collections(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # it prints when it is imported
    before = gc.get_freeze_count()
    try:
        with collector_paused():
            pass
        assert gc.get_freeze_count() == before
        with collector_paused():
            import this  # noqa: F401
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_the_end_of_a_process_is_quiet():
    """nanobind lists what a library that it binds has left uncollected: forty lines of triton's."""
    code = (
        "from sft_dist.garbage import collector_paused\n"
        "with collector_paused():\n"
        "    import torch._dynamo, triton"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "leaked" not in ended.stderr


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.itself = self


def test_what_is_put_off_can_be_collected_afterwards():
    with collections_put_off():
        ring = weakref.ref(Ring())
        assert gc.collect() == 0
        assert gc.collect(1) == 0
        assert ring() is not None
    gc.collect()
    assert ring() is None


def test_collections_are_made_again_after_an_error():
    collect = gc.collect
    with pytest.raises(ValueError, match="inside"), collections_put_off():
        raise ValueError("inside")
    assert gc.collect is collect
