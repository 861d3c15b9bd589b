"""Tokens on disk: found again, never wrong, never in the way."""

import errno
import fcntl
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sft_dist.data import token_cache
from sft_dist.data.token_cache import TokenTable, cache_key, cached, default_cache_dir

KEY = "0" * 32


@pytest.fixture
def table():
    return TokenTable(
        input_ids=np.array([5, 6, 7, 8, 9], dtype=np.int32),
        ends=np.array([2, 5]),
        prompt_lengths=np.array([1, 2]),
    )


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one)
    )  # fmt: skip


def never():
    raise AssertionError("it was there already")


def the_file(directory):
    return directory / "tokens" / f"{KEY}.safetensors"


def test_what_was_built_is_read_the_next_time(tmp_path, table):
    assert cached(tmp_path, KEY, lambda: table) is table
    assert same(cached(tmp_path, KEY, never), table)
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == {
        f"{KEY}.safetensors", f"{KEY}.lock",
    }  # fmt: skip


def test_another_key_has_another_table(tmp_path, table):
    other = TokenTable(table.input_ids + 1, table.ends, table.prompt_lengths)
    cached(tmp_path, KEY, lambda: table)
    assert cached(tmp_path, "1" * 32, lambda: other) is other
    assert same(cached(tmp_path, KEY, never), table)


def test_no_damaged_byte_is_believed(tmp_path, table, caplog):
    """Each byte of the file in turn: what is read is right, or it is built again and told."""
    cached(tmp_path, KEY, lambda: table)
    whole = the_file(tmp_path).read_bytes()
    rebuilt = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        the_file(tmp_path).write_bytes(damaged)
        built = []
        assert same(cached(tmp_path, KEY, lambda built=built: built.append(1) or table), table)
        rebuilt += len(built)
        assert the_file(tmp_path).read_bytes() == (whole if built else bytes(damaged))
    assert rebuilt > 0.9 * len(whole)  # some bytes of the header, such as its padding, say nothing
    assert caplog.text.count("damaged; the examples are tokenised again") == rebuilt


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_file_that_was_cut_off_is_built_again(tmp_path, table, caplog, length):
    cached(tmp_path, KEY, lambda: table)
    whole = the_file(tmp_path).read_bytes()
    the_file(tmp_path).write_bytes(whole[:length])
    cached(tmp_path, KEY, lambda: table)
    assert f"{KEY}.safetensors cannot be read or is damaged" in caplog.text
    assert the_file(tmp_path).read_bytes() == whole


def test_a_file_under_the_name_of_another_is_not_believed(tmp_path, table):
    cached(tmp_path, "1" * 32, lambda: table)
    (tmp_path / "tokens" / f"{'1' * 32}.safetensors").rename(the_file(tmp_path))
    other = TokenTable(table.input_ids + 1, table.ends, table.prompt_lengths)
    assert cached(tmp_path, KEY, lambda: other) is other


def test_a_directory_that_cannot_be_written_costs_a_warning_only(tmp_path, table, caplog):
    (tmp_path / "file").write_text("not a directory")
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path / "file", KEY, lambda: table) is table
    assert "not cached" in caplog.text
    assert "--cache_dir" in caplog.text


def test_a_full_disk_costs_a_warning_and_leaves_no_part_of_a_file(
    tmp_path, table, caplog, monkeypatch
):
    def full(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert cached(tmp_path, KEY, lambda: table) is table
    assert "No space left" in caplog.text
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [f"{KEY}.lock"]


def slow_build(table, built):
    def build():
        built.append(1)
        time.sleep(0.3)
        return table

    return build


def test_of_ranks_that_come_together_one_builds_and_the_others_read(tmp_path, table, monkeypatch):
    monkeypatch.setattr(token_cache, "POLL_SECONDS", 0.01)
    built = []
    with ThreadPoolExecutor(8) as ranks:
        found = list(ranks.map(lambda _: cached(tmp_path, KEY, slow_build(table, built)), range(8)))
    assert len(built) == 1
    assert all(same(each, table) for each in found)


def test_a_rank_whose_builder_failed_leaves_the_work_to_the_next(tmp_path, table):
    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cached(tmp_path, KEY, fail)
    assert cached(tmp_path, KEY, lambda: table) is table


def test_without_locks_every_rank_builds_and_publishes_a_whole_file(tmp_path, table, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    built = []
    with ThreadPoolExecutor(4) as ranks:
        list(ranks.map(lambda _: cached(tmp_path, KEY, slow_build(table, built)), range(4)))
    assert len(built) == 4
    assert same(cached(tmp_path, KEY, never), table)


def test_nobody_waits_for_ever(tmp_path, table, monkeypatch):
    monkeypatch.setattr(token_cache, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(token_cache, "PATIENCE_SECONDS", 0.05)
    (tmp_path / "tokens").mkdir()
    with (tmp_path / "tokens" / f"{KEY}.lock").open("a") as held_by_another:
        fcntl.flock(held_by_another, fcntl.LOCK_EX)
        assert cached(tmp_path, KEY, lambda: table) is table


TEXTS = ["What is 1?", "It is 1."]


@pytest.fixture
def key(tokenizer):
    def make(texts=TEXTS, tokenizer=tokenizer, prompt="default", stop_token_id=1):
        return cache_key(texts, tokenizer, prompt=prompt, stop_token_id=stop_token_id)

    return make


@pytest.mark.parametrize(
    "change",
    [
        {"texts": TEXTS[::-1]},
        {"texts": [*TEXTS, ""]},
        {"texts": ["What is 1?It", " is 1."]},
        {"texts": ["What is 2?", "It is 1."]},
        {"prompt": "question_only"},
        {"stop_token_id": 0},
    ],
)
def test_the_key_changes_with_texts_and_form(key, change):
    assert key(**change) != key()


def test_the_key_changes_with_the_tokenizer(key, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    other = type(tokenizer).from_pretrained(tmp_path)
    assert key(tokenizer=other) == key()
    other.add_tokens(["What"])
    assert key(tokenizer=other) != key()


def test_the_key_changes_with_the_version_of_the_code(key, monkeypatch):
    before = key()
    monkeypatch.setattr(token_cache, "FORMAT", token_cache.FORMAT + 1)
    assert key() != before


def test_using_a_tokenizer_does_not_change_its_key(key, tokenizer):
    before = key()
    tokenizer(["some text", "more"], padding=True, truncation=True, max_length=3)
    tokenizer(["some text"])
    assert key() == before


def test_half_a_surrogate_pair_has_a_key_too(key):
    assert key(["\ud835", ""]) != key(["", "\ud835"])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/cache", "HOME": "/home/x"}, "/cache/sft_dist"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/x"}, "/home/x/.cache/sft_dist"),
        ({"HOME": "/home/x"}, "/home/x/.cache/sft_dist"),
    ],
)
def test_the_default_place_is_the_users_cache(monkeypatch, variables, expected):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


def test_a_user_without_a_home_has_no_default_place(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert default_cache_dir() is None
