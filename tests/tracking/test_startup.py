"""The stop-watch of a start."""

import logging
import subprocess
import sys
import time

import pytest

from sft_dist.tracking import startup
from sft_dist.tracking.metrics import METRICS
from sft_dist.tracking.startup import PARTS, StartupTimes, process_age


def test_every_part_is_a_declared_metric():
    declared = {name for name in METRICS if name.startswith("startup/")}
    assert declared == {f"startup/{part}_seconds" for part in (*PARTS, "total")}


def test_a_process_knows_its_age_with_the_start_of_the_interpreter():
    program = (
        "import time; time.sleep(0.3)\n"
        "from sft_dist.tracking.startup import process_age; print(process_age())"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    lasted = time.monotonic() - began
    assert 0.3 < float(done.stdout) < lasted + 0.02  # the kernel counts in ticks of 10 ms


def test_where_the_age_is_unknown_the_watch_starts_at_once(monkeypatch):
    monkeypatch.delattr(startup.time, "CLOCK_BOOTTIME")
    assert process_age() == 0.0
    times = StartupTimes()
    times.done("imports")
    assert times.row()["startup/imports_seconds"] < 1


def test_each_part_lasts_from_the_end_of_the_one_before(monkeypatch):
    monkeypatch.setattr(startup, "process_age", lambda: 5.0)
    now = iter([100.0, 101.0, 104.0, 104.5])
    monkeypatch.setattr(startup.time, "monotonic", lambda: next(now))
    times = StartupTimes()
    for part in ("imports", "data", "engine"):
        times.done(part)
    assert times.row() == {
        "startup/imports_seconds": 6.0, "startup/data_seconds": 3.0,
        "startup/engine_seconds": 0.5, "startup/total_seconds": 9.5,
    }  # fmt: skip


def test_an_unknown_part_is_an_error():
    with pytest.raises(KeyError, match="coffee"):
        StartupTimes().done("coffee")


def test_the_log_has_one_line_with_all_parts(caplog):
    times = StartupTimes()
    times.done("imports")
    times.done("first_step")
    with caplog.at_level(logging.INFO):
        times.row()
    (record,) = caplog.records
    assert record.getMessage().startswith("start-up: ")
    assert "imports" in record.getMessage()
    assert "first step" in record.getMessage()
