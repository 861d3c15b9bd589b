import time

from sft_dist.reporting import writer
from sft_dist.reporting.writer import write_report
from tests.reporting.made_runs import make_run


def test_the_report_lies_in_the_run_directory(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.read_text().startswith("<!doctype html>")


def test_writing_it_leaves_nothing_else_behind(run_dir):
    before = {path.name for path in run_dir.iterdir()}
    write_report(run_dir)
    assert {path.name for path in run_dir.iterdir()} == before | {"report.html"}


def test_a_fault_of_ours_does_not_stop_a_run_and_keeps_the_earlier_report(
    run_dir, monkeypatch, caplog
):
    write_report(run_dir)
    earlier = (run_dir / "report.html").read_text()
    monkeypatch.setattr(writer, "build_page", lambda _: 1 / 0)
    assert write_report(run_dir) == run_dir / "report.html"
    assert "could not be written" in caplog.text
    assert (run_dir / "report.html").read_text() == earlier


def test_a_directory_that_is_gone_does_not_stop_a_run(tmp_path):
    write_report(tmp_path / "gone")


def test_an_ordinary_report_takes_less_than_a_second(tmp_path):
    """500 problems at 8 steps, as a run on MATH has; 0.2 s here, so a busy machine passes too."""
    from tests.reporting.made_runs import evaluate, made_problems

    run_dir = make_run(tmp_path / "run", num_problems=500)
    for step in (10, 20, 30, 40, 60):
        evaluate(run_dir, step, made_problems(500), skill=0.5)
    write_report(run_dir)  # reads the libraries
    began = time.process_time()
    write_report(run_dir)
    assert time.process_time() - began < 1.0
