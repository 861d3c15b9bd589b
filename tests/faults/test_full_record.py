"""metrics.jsonl on a disk that is full: training goes on, and no row is lost that can be kept."""

import logging
from contextlib import suppress

from sft_dist.tracking.record import FILE_NAME, MetricsRecord, read_rows
from tests.faults.test_disk import mounted, resize


def fill(path):
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def told(caplog, level):
    return [entry.getMessage() for entry in caplog.records if entry.levelno == level]


def test_rows_that_a_full_disk_refuses_are_written_when_there_is_room_again(tmp_path, caplog):
    with mounted(tmp_path / "disk", "size=64k") as disk:
        record = MetricsRecord(disk, attempt=1)
        record.write({"step": 1})
        fill(disk / "ballast")
        for step in range(2, 400):  # the page that is begun has room for some
            record.write({"step": step})
        assert (disk / FILE_NAME).read_bytes()[-1:] != b"\n"
        (disk / "ballast").unlink()
        record.write({"step": 400})
        assert [row["step"] for row in read_rows(disk)] == list(range(1, 401))
        record.close()
    (warning,) = told(caplog, logging.WARNING)
    assert str(disk / FILE_NAME) in warning
    assert "No space left on device" in warning
    assert told(caplog, logging.ERROR) == []


def test_rows_that_are_lost_are_counted_and_the_next_attempt_repairs_the_torn_line(
    tmp_path, caplog
):
    with mounted(tmp_path / "disk", "size=16k") as disk:
        first = MetricsRecord(disk, attempt=1)
        for step in range(1, 1001):
            first.write({"step": step})
        first.close()
        kept = [row["step"] for row in read_rows(disk)]
        assert kept == list(range(1, len(kept) + 1))
        (lost,) = told(caplog, logging.ERROR)
        assert f"the last {1000 - len(kept)} rows are lost" in lost
        assert str(disk / FILE_NAME) in lost
        resize(disk, leaving=64)
        second = MetricsRecord(disk, attempt=2)
        second.write({"step": 7})
        second.close()
        assert [row["step"] for row in read_rows(disk)] == [*kept, 7]


def test_a_second_outage_is_told_as_the_first_was(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    record = MetricsRecord(tmp_path, attempt=1)
    whole, full = record._file, open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    for step in range(1, 9):
        record._file = full if step in (2, 3, 6) else whole
        record.write({"step": step})
    record.close()
    full.close()
    assert len(told(caplog, logging.WARNING)) == 2
    assert len(told(caplog, logging.INFO)) == 2
    assert [row["step"] for row in read_rows(tmp_path)] == list(range(1, 9))
