"""The command: its own options, its verdict, the same on every rank."""

import os
import subprocess
import sys

import pytest

from sft_dist.preflight import Options, main, split_options


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    from launch.demo.model import write_model
    from launch.demo.problems import make_problems, write_math_directory

    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "model", 0)
    train, test = make_problems(0, num_train=64, num_test=4)
    write_math_directory(folder / "data", train, test=test)
    return folder


def run(inputs, tmp_path, *more, launcher=()):
    flags = {
        "model_path": inputs / "model", "data_path": inputs / "data", "dtype": "float32",
        "output_dir": tmp_path / "run", "global_batch_size": 8, "max_seq_length": 128,
        "cache_dir": tmp_path / "cache", "eval_placement": "off",
    }  # fmt: skip
    words = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    return subprocess.run(
        [sys.executable, *launcher, "-m", "sft_dist.preflight", *words, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_its_own_options_are_taken_out_of_the_flags_of_the_run():
    words = ["--seed", "1", "--probe", "--ranks", "8", "--debug"]
    assert split_options(words) == (Options(True, 8), ["--seed", "1", "--debug"])
    assert split_options(["--ranks=2"])[0].ranks == 2
    with pytest.raises(SystemExit, match="expected a number of ranks"):
        split_options(["--ranks", "x"])


def test_help_tells_of_its_own_options(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0
    assert all(word in told for word in ("--probe", "--ranks", "no-go", "sft-train --help"))


def test_a_fault_of_the_flags_is_a_no_go():
    reply = subprocess.run(
        [sys.executable, "-m", "sft_dist.preflight", "--modle_path", "x"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert reply.returncode == 1
    assert reply.stdout.startswith("no-go")
    assert "did you mean --model_path?" in reply.stdout


@pytest.mark.slow
def test_two_ranks_probe_the_run_and_go(inputs, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    reply = run(inputs, tmp_path, "--probe", launcher=launcher)
    assert reply.returncode == 0, reply.stdout + reply.stderr
    assert reply.stdout.rstrip().splitlines()[-1].startswith("go (")
    for line in ("a rank, measured", "GB/s a rank", "is seen by 2 ranks", "[[LOSS>>", "hours of"):
        assert line in reply.stdout
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".sft-preflight*"))


@pytest.mark.slow
def test_a_directory_that_is_taken_is_one_reason_among_the_findings(inputs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    reply = run(inputs, tmp_path)
    assert reply.returncode == 1, reply.stdout + reply.stderr
    verdict = reply.stdout[reply.stdout.index("no-go:\n") :]
    assert "1. run directory: --output_dir" in verdict
    assert "is seen by 1 rank on 1 node" in reply.stdout


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_a_no_go_without_being_started(inputs, tmp_path):
    reply = run(inputs, tmp_path, "--max_seq_length", "45", "--ranks", "64")
    assert reply.returncode == 1, reply.stdout + reply.stderr
    verdict = reply.stdout[reply.stdout.index("no-go:") :]
    assert "stop token" in verdict
    assert "global batch 8 on 64 ranks" in reply.stdout
