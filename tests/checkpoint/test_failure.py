"""What a user reads when a checkpoint cannot be written."""

import errno
import os

import pytest

from sft_dist.checkpoint import failure
from sft_dist.checkpoint.failure import explain


def as_of(code):
    return OSError(code, os.strerror(code), "/run/checkpoint-4")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, ["No space left on device", "free space there"]),
        (errno.EDQUOT, ["quota exceeded", "within your quota"]),
        (errno.EROFS, ["Read-only file system", "mounted for writing"]),
        (errno.EACCES, ["Permission denied", "the right to write"]),
        (errno.EIO, ["Input/output error", "server behind it"]),
        (errno.EBUSY, ["busy", "log of this rank"]),
    ],
)
def test_it_says_what_happened_how_much_is_free_and_what_to_do(tmp_path, code, words):
    text = explain(as_of(code), tmp_path / "not" / "there")
    for word in (*words, "GiB free there"):
        assert word in text


def test_an_error_that_was_wrapped_is_taken_out():
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = as_of(errno.EROFS)
    text = explain(wrapped, failure.Path("/"))
    assert text.startswith("Read-only file system; ")


def test_an_error_that_is_only_in_the_words_is_understood(tmp_path):
    text = explain(ValueError("I/O error: No space left on device (os error 28)"), tmp_path)
    assert "free space there" in text


@pytest.mark.parametrize(("free", "inodes"), [(0, 5), (1000, 5), (2**40, 0)])
def test_a_full_disk_is_seen_where_the_error_does_not_say_it(tmp_path, monkeypatch, free, inodes):
    monkeypatch.setattr(failure, "_room", lambda path: (free, inodes))
    text = explain(RuntimeError("unexpected pos 704 vs 598"), tmp_path)
    assert text.startswith("No space left on device; ")


def test_an_error_without_words_has_a_name(tmp_path):
    assert explain(MemoryError(), tmp_path).startswith("MemoryError: no message")
