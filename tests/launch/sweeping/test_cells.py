"""Names, draws, rules: from a sweep file to the flags of its cells."""

import importlib.util

import pytest

from launch.sweeping.calls import next_call
from launch.sweeping.cells import planned_cells
from launch.sweeping.description import read_sweep
from launch.sweeping.samplers import draws, propose


def cells_of(path):
    return planned_cells(read_sweep(path), checks=())


def test_the_same_file_gives_the_same_names(sweep_file):
    first = [cell.name for cell in cells_of(sweep_file())]
    assert first == [cell.name for cell in cells_of(sweep_file())]
    assert first[0].startswith("learning_rate-0.0001_seed-1-")
    assert len(set(first)) == 4


def test_a_number_is_the_same_however_yaml_spells_it(sweep_file):
    spelled = [cells_of(sweep_file(axes={"learning_rate": [v]}))[0] for v in ("1e-4", 0.0001)]
    assert spelled[0].name == spelled[1].name


def test_another_flag_of_all_cells_gives_other_directories(sweep_file):
    before = {cell.run_dir for cell in cells_of(sweep_file())}
    flags = {"model_path": "owner/other", "data_path": "owner/data"}
    assert not before & {cell.run_dir for cell in cells_of(sweep_file(flags=flags))}


def test_more_values_keep_the_cells_there_were(sweep_file):
    before = {cell.name for cell in cells_of(sweep_file())}
    axes = {"learning_rate": [5e-5, "1e-4", 2e-4], "seed": [1, 2, 3]}
    after = {cell.name for cell in cells_of(sweep_file(axes=axes))}
    assert before < after
    assert len(after) == 9


def test_two_spellings_of_one_cell_are_one_cell(sweep_file):
    assert len(cells_of(sweep_file(axes={"learning_rate": ["1e-4", 0.0001]}))) == 1


def test_values_that_look_like_paths_or_flags_stay_inside_the_directory(sweep_file):
    axes = {"cache_dir": ["/a/b c", "../../up", "--seed"]}
    for cell in cells_of(sweep_file(axes=axes)):
        assert cell.run_dir.parent.name == "cells"
        assert f"--cache_dir={cell.point['cache_dir']}" in cell.arguments("g")


def test_random_draws_are_repeatable_within_bounds_and_more_keep_the_first(sweep_file):
    axes = {
        "learning_rate": {"low": "1e-6", "high": "1e-4", "log": True},
        "global_batch_size": {"low": 64, "high": 512},
        "engine": ["torch", "deepspeed"],
    }
    few = cells_of(sweep_file(sampler="random", axes=axes, num_cells=5))
    many = cells_of(sweep_file(sampler="random", axes=axes, num_cells=20))
    assert [c.name for c in few] == [c.name for c in many][:5]
    assert len({c.name for c in many}) == 20
    for cell in many:
        assert 1e-6 <= cell.flags["learning_rate"] <= 1e-4
        assert isinstance(cell.flags["global_batch_size"], int)
        assert 64 <= cell.flags["global_batch_size"] <= 512
    rates = [c.flags["learning_rate"] for c in many]
    assert sum(rate < 1e-5 for rate in rates) >= 5, "log: half of the draws are below the middle"


def test_random_draws_of_few_values_come_to_an_end(sweep_file):
    path = sweep_file(sampler="random", axes={"seed": [1, 2, 3]}, num_cells=50)
    assert len(cells_of(path)) == 3


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4.0), ("sqrt", 2.0)])
def test_rules_scale_the_rate_from_the_reference_batch(sweep_file, rule, factor):
    path = sweep_file(
        axes={"global_batch_size": [256, 1024]},
        flags={"model_path": "o/m", "data_path": "o/d", "learning_rate": "1e-5"},
        rules={"learning_rate": rule, "reference_batch": 256, "warmup_examples": 2600},
    )
    small, large = cells_of(path)
    assert small.flags["learning_rate"] == 1e-5
    assert large.flags["learning_rate"] == pytest.approx(factor * 1e-5, rel=1e-6)
    assert (small.flags["warmup_steps"], large.flags["warmup_steps"]) == (11, 3)


def test_flags_of_a_config_file_are_under_those_of_the_sweep(sweep_file, tmp_path):
    (tmp_path / "run.yaml").write_text("max_seq_length: 77\neval_backend: vllm\n")
    cell = cells_of(sweep_file(config=str(tmp_path / "run.yaml")))[0]
    assert cell.flags["max_seq_length"] == 77
    assert cell.flags["eval_backend"] == "hf"


def test_without_optuna_the_fault_says_what_to_do(sweep_file, call, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else found(name, *a)
    )
    code, output = call(sweep_file(sampler="optuna", num_cells=4), "--dry_run")
    assert code == 2
    assert "pip install optuna" in output


OPTUNA_AXES = {
    "learning_rate": {"low": "1e-5", "high": "9e-4", "log": True},
    "engine": ["torch", "deepspeed"],
}


def test_optuna_proposes_learns_and_runs_the_cells_asked_for(sweep_file, call, tmp_path):
    pytest.importorskip("optuna", reason="optuna is an option, not in the lock")
    path = sweep_file(sampler="optuna", axes=OPTUNA_AXES, num_cells=7, cells_per_call=3)
    code, output = call(path, "--local")
    assert code == 0, output
    assert "7 finished" in output
    sweep = read_sweep(path)
    found = next_call(sweep, (), set())
    assert (len(found.cells), found.todo) == (7, [])
    again = propose(sweep, [(c.point, 0.5) for c in found.cells], 1)
    assert again == propose(sweep, [(c.point, 0.5) for c in found.cells], 1)


def test_draws_do_not_depend_on_what_was_drawn_elsewhere():
    axes = {"seed": [1, 2, 3, 4]}
    first, second = draws(axes, 0), draws(axes, 0)
    assert [next(first) for _ in range(9)] == [next(second) for _ in range(9)]
