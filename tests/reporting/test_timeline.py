from sft_dist.reporting.checkpoints import read_checkpoints
from sft_dist.reporting.evaluations import read_evaluations
from sft_dist.reporting.run_files import read_settings
from sft_dist.reporting.state import read_state
from sft_dist.reporting.timeline import MAX_EVENTS, events, spans
from sft_dist.reporting.training import read_training
from tests.reporting.made_runs import ask, claim, write_json


def timeline(run_dir):
    training = read_training(run_dir, read_settings(run_dir))
    evaluations = read_evaluations(run_dir)
    happened = events(
        run_dir, training, evaluations,
        checkpoints=read_checkpoints(run_dir), state=read_state(run_dir, training),
    )  # fmt: skip
    return spans(training, evaluations), happened


def test_a_resumed_run_has_two_spans_of_training_and_a_resume_between(run_dir):
    found, happened = timeline(run_dir)
    first, second = (span for span in found if span.lane == "training")
    assert first.ended < second.began
    (resume,) = (event for event in happened if event.kind == "resume")
    assert "attempt 2" in resume.what
    assert "at least 5 steps done again" in resume.what


def test_events_stand_in_the_order_of_time(run_dir):
    _, happened = timeline(run_dir)
    kinds = [event.kind for event in happened]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("checkpoint") == 2
    assert kinds.count("evaluation") == 3
    assert [e.time for e in happened] == sorted(e.time for e in happened)


def test_each_evaluation_has_a_span_of_its_generation(run_dir):
    found, _ = timeline(run_dir)
    evaluations = [span for span in found if span.lane == "evaluation"]
    assert len(evaluations) == 3
    assert all(round(span.ended - span.began) == 22 for span in evaluations)


def test_faults_come_from_status_workers_logs_and_checkpoints(run_dir):
    write_json(run_dir / "status.json", {"state": "failed", "reason": "out of memory", "time": 2e9})
    claim(ask(run_dir, 75), state="died", reason="signal 9")
    (run_dir / "checkpoint-50/config.json").unlink()
    (run_dir / "logs").mkdir()
    line = "2025-06-15 15:08:00,123 {} sft_dist.loop | {}\n"
    for rank in (0, 1):  # all ranks complain of the same
        (run_dir / f"logs/rank_0000{rank}.log").write_text(
            line.format("INFO", "quiet") + line.format("ERROR", "loss is nan") + "no log line\n"
        )
    _, happened = timeline(run_dir)
    faults = " | ".join(event.what for event in happened if event.kind == "fault")
    for part in ("out of memory", "signal 9", "checkpoint-50 is damaged", "loss is nan"):
        assert faults.count(part) == 1, part
    assert "quiet" not in faults


def test_a_log_full_of_warnings_does_not_make_the_page_large(run_dir):
    (run_dir / "logs").mkdir()
    lines = "".join(f"2025-06-15 15:08:00,123 WARNING library | number {i}\n" for i in range(5000))
    (run_dir / "logs/rank_00000.log").write_text(lines)
    _, happened = timeline(run_dir)
    assert len(happened) == MAX_EVENTS
