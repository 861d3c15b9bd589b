"""Files are whole or absent, for every reader and after a crash."""

import errno
import os
from pathlib import Path

import pytest

from sft_dist import durable
from sft_dist.durable import (
    create_once,
    exchange,
    publish_once,
    read_json,
    write_atomically,
    write_json,
)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_atomically(path, "old")
    replace = os.replace
    seen = []

    def recording(source, target):
        seen.append((Path(source).read_text(), Path(target).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", recording)
    write_atomically(path, "new")
    assert seen == [("new", "old")]
    assert path.read_text() == "new"
    assert names(tmp_path) == ["status.json"]


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix or "directory")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "x.json", "{}")
    assert done == [".tmp", "replace", "directory"]


def test_what_need_not_be_durable_waits_for_no_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("fsync"))
    write_atomically(tmp_path / "x", "text", durable=False)
    assert (tmp_path / "x").read_text() == "text"


def test_nan_is_refused_before_it_reaches_a_file(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert not path.exists()


def test_an_interrupted_write_keeps_the_old_content_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["x.json"]


def test_temporary_names_follow_their_pattern(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda source, target: None)
    write_atomically(tmp_path / "x.json", "{}")
    assert list(tmp_path.glob(durable.TEMPORARY)) == list(tmp_path.iterdir())


def test_only_the_first_creates_a_file(tmp_path):
    path = tmp_path / "claim"
    assert create_once(path, "first")
    assert not create_once(path, "second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["claim"]


def test_publishing_does_without_hard_links(tmp_path, monkeypatch):
    def none(source, target):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", none)
    for text in ("first", "second"):
        (tmp_path / text).write_text(text)
    assert publish_once(tmp_path / "first", tmp_path / "published")
    assert not publish_once(tmp_path / "second", tmp_path / "published")
    assert (tmp_path / "published").read_text() == "first"


@pytest.mark.parametrize("content", ["", "[]", '{"a":'])
def test_what_is_no_whole_object_is_read_as_nothing(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path / "absent.json") is None


def test_two_directories_swap_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two names")
    assert (tmp_path / "a/file").read_text() == "b"
    assert (tmp_path / "b/file").read_text() == "a"


def test_an_exchange_with_nothing_is_an_error_that_names_both(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        exchange(tmp_path / "a", tmp_path / "absent")
    assert (caught.value.filename, caught.value.filename2) == (
        str(tmp_path / "a"), str(tmp_path / "absent"),
    )  # fmt: skip
