import pytest

from sft_dist.report import main
from tests.reporting.made_runs import make_run


def test_one_run_is_written_into_its_directory(run_dir, capsys):
    main([str(run_dir)])
    assert (run_dir / "report.html").is_file()
    assert str(run_dir / "report.html") in capsys.readouterr().out


def test_several_runs_go_to_the_file_named(tmp_path, run_dir):
    other = make_run(tmp_path / "other", num_problems=5)
    main([str(run_dir), str(other), "--output", str(tmp_path / "both.html")])
    assert (tmp_path / "both.html").is_file()
    assert not (run_dir / "report.html").exists()


def test_several_runs_are_compared_on_a_page_where_one_stands(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([str(run_dir), str(run_dir)])
    assert (tmp_path / "comparison.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{run}/nothing"], "RUN_DIR"),
        (["{run}", "--output", "{run}/no/such/x.html"], "--output"),
    ],
)
def test_faults_are_told_with_exit_code_2(run_dir, capsys, arguments, named):
    with pytest.raises(SystemExit) as raised:
        main([text.format(run=run_dir) for text in arguments])
    assert raised.value.code == 2
    assert named in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_exit_code_1(run_dir, capsys):
    (run_dir / "page").mkdir()
    with pytest.raises(SystemExit) as raised:
        main([str(run_dir), "--output", str(run_dir / "page")])
    assert raised.value.code == 1
    assert "could not be written" in capsys.readouterr().err
