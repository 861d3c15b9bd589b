from sft_dist.reporting.run import read_run
from sft_dist.reporting.sweep import against_best
from tests.reporting.made_runs import make_run, write_run_files


def test_runs_are_compared_with_the_best_by_problem(tmp_path):
    skills = [(0.3, 0.3, 0.5), (0.3, 0.3, 0.8), (0.3, 0.3, 0.6)]
    runs = [make_run(tmp_path / str(i), skills=s) for i, s in enumerate(skills)]
    write_run_files(tmp_path / "fresh")
    found = against_best([read_run(path) for path in [*runs, tmp_path / "fresh"]])
    assert found[1] is None  # it is the best
    assert found[3] is None  # nothing to compare
    assert found[0]["best"] == found[2]["best"] == 1
    assert found[0]["difference"] < found[2]["difference"] < 0
    assert found[0]["lost"] > found[0]["gained"]


def test_a_single_scored_run_has_nothing_to_be_compared_with(run_dir):
    assert against_best([read_run(run_dir)]) == [None]
