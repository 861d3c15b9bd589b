"""Suggestions for a path that is not there."""

from pathlib import Path

from sft_dist.paths import existing_parent, near_path


def test_the_first_part_that_is_missing_is_the_one_that_is_asked_about(tmp_path):
    (tmp_path / "data" / "MATH").mkdir(parents=True)
    assert near_path(tmp_path / "dta" / "MATH") == f"; did you mean {tmp_path / 'data'}?"
    assert near_path(tmp_path / "data" / "MAHT" / "train").endswith("data/MATH?")


def test_what_is_there_or_like_nothing_there_gets_no_suggestion(tmp_path):
    assert near_path(tmp_path) == ""
    assert near_path(tmp_path / "another") == ""


def test_files_are_not_alike_for_their_endings(tmp_path):
    (tmp_path / "te.jsonl").touch()
    assert near_path(tmp_path / "nope.jsonl") == ""
    assert near_path(tmp_path / "ten.jsonl").endswith("te.jsonl?")


def test_a_path_that_cannot_be_asked_about_is_no_error(tmp_path):
    assert near_path(tmp_path / ("x" * 5000)) == ""


def test_the_nearest_directory_above(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert existing_parent(Path("a/b")) == tmp_path
    (tmp_path / "file").touch()
    assert existing_parent(tmp_path / "file" / "x") == tmp_path
