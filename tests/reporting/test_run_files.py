from sft_dist.reporting import run_files


def test_names_are_those_of_the_rooms_that_write_them():
    from sft_dist.checkpoint.layout import MANIFEST
    from sft_dist.evaluation import queue, request, results
    from sft_dist.tracking import record

    assert run_files.METRICS == record.FILE_NAME
    assert (run_files.EVALUATIONS, run_files.REQUEST) == (request.EVALUATIONS, request.REQUEST_FILE)
    assert run_files.COMPLETIONS == queue.COMPLETIONS_FILE
    assert run_files.GRADES == results.GRADES_FILE
    assert run_files.SUMMARY == queue.SUMMARY_FILE
    assert run_files.FAILURE == queue.FAILURE_FILE
    assert run_files.HEARTBEAT == queue.HEARTBEAT_FILE
    assert run_files.GENERATION == queue.GENERATION_FILE
    assert run_files.MANIFEST == MANIFEST


def test_damaged_lines_are_counted_and_the_others_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "tr\n\n[3]\n\xff\xfe\n{"step": 4}\n')
    lines = run_files.read_json_lines(path)
    assert lines.rows == [{"step": 1}, {"step": 4}]
    assert lines.damaged == [2, 4, 5]


def test_a_deeply_nested_line_is_damage_and_no_crash(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("[" * 100_000 + '\n{"step": 1}\n')
    assert run_files.read_json_lines(path).rows == [{"step": 1}]


def test_settings_that_are_no_yaml_are_no_settings(tmp_path):
    for content in ("a: [", "- 1", "", "\x00"):
        (tmp_path / "config.yaml").write_text(content)
        assert run_files.read_settings(tmp_path) == {}


def test_only_finite_numbers_are_numbers():
    assert [run_files.number(v) for v in (1, 2.5, float("nan"), float("inf"), True, "1", None)] == [
        1, 2.5, None, None, None, None, None,
    ]  # fmt: skip


def test_the_tail_of_a_file_begins_with_a_whole_line(tmp_path):
    path = tmp_path / "log"
    path.write_text("first line\nsecond line\nthird\n")
    assert list(run_files.tail_lines(path, max_bytes=12)) == ["third"]
    assert next(run_files.tail_lines(path, max_bytes=1000)) == "first line"
    assert list(run_files.tail_lines(tmp_path / "none", max_bytes=10)) == []
