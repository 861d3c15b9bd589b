"""What ranks tell one another through the launcher's store."""

import time

import pytest
import torch.distributed as dist

from sft_dist.runtime import noticeboard
from sft_dist.runtime.noticeboard import Noticeboard, Position


@pytest.fixture
def store(monkeypatch):
    """A launcher's store of this process."""
    made = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(made.port))
    monkeypatch.setattr(noticeboard, "BEAT_SECONDS", 0.02)
    return made


@pytest.fixture
def boards(store):
    """Of two ranks that beat."""
    made = [Noticeboard(rank, 2) for rank in range(2)]
    for rank, board in enumerate(made):
        board.start(lambda rank=rank: Position(step=rank, doing="computing", moves=3, beat=0))
    yield made
    for board in made:
        board.stop()


def eventually(question, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def test_every_rank_reads_where_all_are_and_that_they_live(boards):
    found = eventually(lambda: len(boards[1].positions() or {}) == 2 and boards[1].positions())
    assert {rank: position.step for rank, position in found.items()} == {0: 0, 1: 1}
    beats = found[0].beat
    assert eventually(lambda: boards[1].positions()[0].beat > beats)


def test_a_rank_is_heard_of_before_its_second_beat_is_due(store, monkeypatch):
    monkeypatch.setattr(noticeboard, "BEAT_SECONDS", 600)
    board = Noticeboard(0, 1)
    board.start(lambda: Position(step=0, doing="starting", moves=0, beat=0))
    assert eventually(board.positions)[0].beat == 1
    board.stop()


def test_a_rank_that_has_stopped_beats_no_more(boards):
    assert eventually(lambda: len(boards[1].positions() or {}) == 2)
    boards[0].stop()
    beat = boards[1].positions()[0].beat
    time.sleep(0.2)
    assert boards[1].positions()[0].beat == beat


def test_the_first_failure_is_the_one_that_is_kept(boards):
    assert eventually(lambda: len(boards[1].positions() or {}) == 2)
    assert boards[0].failure() is None
    boards[1].tell_failure("rank 1: ValueError: first")
    boards[0].tell_failure("rank 0: RuntimeError: a consequence")
    assert [board.failure() for board in boards] == ["rank 1: ValueError: first"] * 2


def test_without_a_store_there_is_no_answer_and_no_error(monkeypatch, caplog):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(noticeboard, "CONNECT_SECONDS", 1)
    board = Noticeboard(0, 2)
    board.start(lambda: Position(0, "starting", 0, 0))
    assert eventually(lambda: "cannot be reached" in caplog.text)
    assert board.positions() is None
    assert board.failure() is None
    board.tell_failure("nobody hears it")
    board.stop()


def test_a_store_that_never_answers_keeps_nobody_waiting(monkeypatch):
    class Silent:
        def check(self, _):
            time.sleep(30)

    monkeypatch.setattr(noticeboard, "ANSWER_SECONDS", 0.1)
    board = Noticeboard(0, 2)
    board._store = Silent()
    began = time.monotonic()
    assert board.positions() is None
    assert board.failure() is None
    assert time.monotonic() - began < 5


def test_another_start_of_the_ranks_has_another_board(boards, monkeypatch):
    assert eventually(lambda: len(boards[1].positions() or {}) == 2)
    boards[0].tell_failure("of the first start")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    later = Noticeboard(0, 2)
    later.start(lambda: Position(0, "starting", 0, 0))
    assert eventually(lambda: later.positions())
    assert later.failure() is None
    later.stop()
