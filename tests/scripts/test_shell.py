import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB_PACKAGE = Path(__file__).parent / "stub"
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("slurm/*.sh")])
SOURCED = {"env.sh", "reserved.sh", "site.sh", "run_dir.sh", "finish.sh"}
NAMES = [str(path.relative_to(ROOT)) for path in SCRIPTS]


# --- All scripts -----------------------------------------------------------------------------


def test_the_scripts_are_there():
    assert {
        "slurm/train.sh",
        "slurm/evaluate.sh",
        "launch/train_node.sh",
        "launch/train_single_node.sh",
        "launch/train_deepspeed.sh",
        "launch/evaluate.sh",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bash_can_parse_it(run, name):
    subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)


def test_shellcheck_has_nothing_to_say(run, clean_environment):
    shellcheck = shutil.which("shellcheck", path=clean_environment["PATH"])
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (it is in the dev extra)")
    reply = subprocess.run([shellcheck, *NAMES], cwd=ROOT, capture_output=True, text=True)
    assert reply.returncode == 0, reply.stdout


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_says_how_it_is_used(name):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 60
    if Path(name).name in SOURCED:
        assert text.startswith("# ")
    else:
        assert text.startswith("#!/usr/bin/env bash\n# ")
        assert "\nset -euo pipefail\n" in text
        assert re.search(r"Usage:|sbatch slurm/|usage: launch/", text)
        assert os.access(ROOT / name, os.X_OK)


@pytest.mark.parametrize("name", NAMES)
def test_it_belongs_to_no_cluster(name):
    # Partitions, accounts, hosts and absolute paths are for the command line and slurm/site.sh.
    code = re.sub(r"(?m)^#(?!SBATCH|!).*$", "", (ROOT / name).read_text())
    assert not re.search(r"--partition|--account|--qos|--constraint|--nodelist", code)
    assert not re.search(r"(?<![\w.$}\"/])/(?!usr/bin/env|dev/null)[a-z]+/", code)


# --- launch/ ---------------------------------------------------------------------------------


def options(calls):
    """Command line of the stub torchrun as (options, arguments after `--`)."""
    words = calls.read_text().splitlines()
    split = words.index("--")
    return words[:split], words[split + 1 :]


def test_train_node_takes_its_place_from_slurm(run, environment, stub_programs, tmp_path):
    calls = stub_programs("torchrun")
    environment |= {
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_NODEID": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "MASTER_ADDR": "node-a",
        "MASTER_PORT": "21234",
    }
    arguments = ["--data_path", "two words", "--log_steps", "5", ""]
    reply = run("launch/train_node.sh", *arguments[:-1])
    assert reply.returncode == 0, reply.stderr
    found, passed = options(calls)
    text = " ".join(found)
    for expected in (
        "--nnodes 4",
        "--node-rank 2",
        "--nproc-per-node 8",
        "--rdzv-backend static",
        "--master-addr node-a",
        "--master-port 21234",
        "--max-restarts 0",
        "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    ):
        assert expected in text
    assert found[-2:] == ["-m", "sft_dist.train"]
    assert passed == arguments[:-1]
    assert "--log-dir" not in found


def test_train_node_gives_every_rank_a_file_of_its_own(run, environment, stub_programs, tmp_path):
    calls = stub_programs("torchrun")
    environment |= {"LOG_DIR": str(tmp_path / "logs"), "NODE_RANK": "0"}
    assert run("launch/train_node.sh").returncode == 0
    found, _ = options(calls)
    assert found[found.index("--log-dir") + 1] == str(tmp_path / "logs" / "node-0")
    assert found[found.index("--redirects") + 1] == "3"
    assert (tmp_path / "logs" / "node-0").is_dir()


def test_train_node_trains_only_after_a_go_when_a_preflight_is_asked_for(
    run, environment, stub_programs
):
    body = '[[ " $* " == *" sft_dist.preflight "* ]] && exit "$VERDICT"; true'
    calls = stub_programs("torchrun", body)
    environment |= {"SFT_PREFLIGHT": "1", "VERDICT": "1"}
    assert run("launch/train_node.sh", "--seed", "1").returncode == 1
    words = calls.read_text().splitlines()
    assert words[-5:] == ["sft_dist.preflight", "--", "--probe", "--seed", "1"]
    assert "sft_dist.train" not in words
    environment["VERDICT"] = "0"
    assert run("launch/train_node.sh", "--seed", "1").returncode == 0
    assert calls.read_text().splitlines()[-4:] == ["sft_dist.train", "--", "--seed", "1"]
    # After a requeue the job has been looked at already.
    calls.unlink()
    environment["SLURM_RESTART_COUNT"] = "1"
    assert run("launch/train_node.sh", "--seed", "1").returncode == 0
    assert "sft_dist.preflight" not in calls.read_text()


def test_train_node_refuses_several_nodes_without_an_address(
    run, environment, stub_programs, tmp_path
):
    calls = stub_programs("torchrun")
    environment |= {"NNODES": "2", "NODE_RANK": "1"}
    reply = run("launch/train_node.sh")
    assert reply.returncode == 2
    assert "MASTER_ADDR" in reply.stderr
    assert not calls.exists()


@pytest.mark.parametrize(
    ("flags", "node", "ranks"),
    [
        (["--eval_placement", "reserved"], "0", "7"),
        (["--eval_placement=reserved", "--eval_gpus=2"], "0", "6"),
        (["--eval-placement", "reserved", "--eval-gpus", "3"], "0", "5"),
        (["--eval_placement", "reserved"], "1", "8"),
        (["--eval_placement", "shared", "--eval_gpus", "2"], "0", "8"),
        (["--prompt", "reserved"], "0", "8"),
    ],
)
def test_reserved_gpus_get_no_rank_on_the_node_of_rank_0(
    run, environment, stub_programs, flags, node, ranks
):
    calls = stub_programs("torchrun")
    environment |= {"SLURM_GPUS_ON_NODE": "8", "NODE_RANK": node}
    assert run("launch/train_node.sh", *flags).returncode == 0
    found, passed = options(calls)
    assert found[found.index("--nproc-per-node") + 1] == ranks
    assert passed == flags


GPUS_LISTED = 'echo "GPU 0: x"; echo "GPU 1: x"; echo "GPU 2: x"'


@pytest.mark.parametrize(
    ("variables", "driver", "ranks"),
    [
        ({}, "exit 9", "1"),
        ({}, GPUS_LISTED, "3"),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, GPUS_LISTED, "2"),
        ({"CUDA_VISIBLE_DEVICES": ""}, GPUS_LISTED, "1"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, GPUS_LISTED, "1"),
        ({"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0"}, GPUS_LISTED, "8"),
        ({"SLURM_GPUS_ON_NODE": "0"}, "exit 9", "1"),
        ({"SLURM_GPUS_ON_NODE": "8", "NPROC_PER_NODE": "7"}, GPUS_LISTED, "7"),
    ],
)
def test_one_rank_a_gpu_and_one_without(
    run, environment, stub_programs, tmp_path, variables, driver, ranks
):
    calls = stub_programs("torchrun")
    stub_programs("python")
    stub_programs("nvidia-smi", driver)
    environment.update(variables)
    reply = run("launch/train_single_node.sh")
    assert reply.returncode == 0, reply.stderr
    found, _ = options(calls)
    assert found[found.index("--nproc-per-node") + 1] == ranks


def test_a_variable_that_is_set_is_kept(run, environment, stub_programs, tmp_path):
    stub_programs("torchrun", f'env >"{tmp_path}/seen"')
    stub_programs("python")
    environment |= {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "3"}
    assert run("launch/train_single_node.sh").returncode == 0
    seen = (tmp_path / "seen").read_text().splitlines()
    assert {"NCCL_DEBUG=INFO", "OMP_NUM_THREADS=3", "PYTHONUNBUFFERED=1"} <= set(seen)


def test_faults_of_the_flags_are_told_before_torchrun(run, environment, stub_programs):
    calls = stub_programs("torchrun")
    reply = run("launch/train_single_node.sh", "--learning_rat", "1e-5")
    assert (reply.returncode, reply.stdout) == (2, "")
    assert "did you mean --learning_rate?" in reply.stderr
    assert "Traceback" not in reply.stderr
    assert not calls.exists()


def test_evaluate_passes_its_flags_on(run, environment, stub_programs, tmp_path):
    calls = stub_programs("python")
    reply = run("launch/evaluate.sh", "--model_path", "a b")
    assert reply.returncode == 0, reply.stderr
    assert calls.read_text().splitlines() == ["-m", "sft_dist.evaluate", "--model_path", "a b"]


def test_train_deepspeed_hands_host_file_and_environment_over(
    run, environment, stub_programs, tmp_path
):
    calls = stub_programs("deepspeed", f'cat "$DS_ENV_FILE" >"{tmp_path}/exported"')
    (tmp_path / "hosts").write_text("a slots=8\nb slots=8\n")
    (tmp_path / "mine").write_text("UCX_TLS=tcp\n")
    environment |= {"WANDB_API_KEY": "secret", "WANDB_MODE": "offline", "MASTER_ADDR": "a"}
    environment["DS_ENV_FILE"] = str(tmp_path / "mine")
    reply = run("launch/train_deepspeed.sh", "hosts", "--seed", "1")
    assert reply.returncode == 0, reply.stderr
    words = calls.read_text().splitlines()
    assert words[:2] == ["--hostfile", "hosts"]
    assert words[-4:] == ["--module", "sft_dist.train", "--seed", "1"]
    assert "--no_local_rank" in words
    assert words[words.index("--master_addr") + 1] == "a"
    exported = (tmp_path / "exported").read_text()
    assert {"UCX_TLS=tcp", "WANDB_MODE=offline"} <= set(exported.splitlines())
    assert "secret" not in exported


def test_train_deepspeed_asks_for_a_host_file(run, environment, stub_programs, tmp_path):
    calls = stub_programs("deepspeed")
    reply = run("launch/train_deepspeed.sh", "--seed", "1")
    assert reply.returncode == 2
    assert "host file" in reply.stderr
    assert not calls.exists()


@pytest.mark.slow
def test_torchrun_leaves_flags_alone_that_look_like_its_own(run, environment, tmp_path):
    # argparse would read `--log x` or `--start y` as an abbreviation of an option of torchrun.
    shutil.copytree(STUB_PACKAGE / "sft_dist", tmp_path / "sft_dist")
    arguments = ["--output_dir", str(tmp_path), "--start", "y", "--log", "x", "--no"]
    environment["NPROC_PER_NODE"] = "2"
    reply = run("launch/train_single_node.sh", *arguments)
    assert reply.returncode == 0, reply.stderr
    for rank in range(2):
        seen = json.loads((tmp_path / "seen" / f"attempt-0-rank-{rank}.json").read_text())
        assert seen["argv"] == arguments
        assert seen["environment"]["WORLD_SIZE"] == "2"
