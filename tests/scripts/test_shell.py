import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, STUB_PACKAGE

SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("slurm/*.sh")])
SOURCED = {"env.sh", "site.sh", "run_dir.sh", "finish.sh"}
NAMES = [str(path.relative_to(ROOT)) for path in SCRIPTS]


def run(script, *arguments, environment, cwd):
    return subprocess.run(
        [str(ROOT / script), *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def environment(clean_environment, tmp_path):
    """The stubs come first on PATH; the site has no virtual environment of its own."""
    return {
        **clean_environment,
        "PATH": f"{tmp_path}/bin:{clean_environment['PATH']}",
        "SITE_VENV": "",
    }


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
def test_bash_can_parse_it(name):
    subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)


def test_shellcheck_has_nothing_to_say(clean_environment):
    shellcheck = shutil.which("shellcheck", path=clean_environment["PATH"])
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (it is in the dev extra)")
    reply = subprocess.run([shellcheck, *NAMES], cwd=ROOT, capture_output=True, text=True)
    assert reply.returncode == 0, reply.stdout


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_says_how_it_is_used(name):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 100
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


def test_train_node_takes_its_place_from_slurm(environment, stub_programs, tmp_path):
    calls = stub_programs("torchrun")
    environment |= {
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_NODEID": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "MASTER_ADDR": "node-a",
        "MASTER_PORT": "21234",
    }
    arguments = ["--data_path", "two words", "--log_steps", "5", ""]
    reply = run("launch/train_node.sh", *arguments[:-1], environment=environment, cwd=tmp_path)
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


def test_train_node_gives_every_rank_a_file_of_its_own(environment, stub_programs, tmp_path):
    calls = stub_programs("torchrun")
    environment |= {"LOG_DIR": str(tmp_path / "logs"), "NODE_RANK": "0"}
    assert run("launch/train_node.sh", environment=environment, cwd=tmp_path).returncode == 0
    found, _ = options(calls)
    assert found[found.index("--log-dir") + 1] == str(tmp_path / "logs" / "node-0")
    assert found[found.index("--redirects") + 1] == "3"
    assert (tmp_path / "logs" / "node-0").is_dir()


def test_train_node_refuses_several_nodes_without_an_address(environment, stub_programs, tmp_path):
    calls = stub_programs("torchrun")
    environment |= {"NNODES": "2", "NODE_RANK": "1"}
    reply = run("launch/train_node.sh", environment=environment, cwd=tmp_path)
    assert reply.returncode == 2
    assert "MASTER_ADDR" in reply.stderr
    assert not calls.exists()


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
    environment, stub_programs, tmp_path, variables, driver, ranks
):
    calls = stub_programs("torchrun")
    stub_programs("nvidia-smi", driver)
    reply = run("launch/train_single_node.sh", environment=environment | variables, cwd=tmp_path)
    assert reply.returncode == 0, reply.stderr
    found, _ = options(calls)
    assert found[found.index("--nproc-per-node") + 1] == ranks


def test_a_variable_that_is_set_is_kept(environment, stub_programs, tmp_path):
    stub_programs("torchrun", f'env >"{tmp_path}/seen"')
    environment |= {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "3"}
    assert run("launch/train_single_node.sh", environment=environment, cwd=tmp_path).returncode == 0
    seen = (tmp_path / "seen").read_text().splitlines()
    assert {"NCCL_DEBUG=INFO", "OMP_NUM_THREADS=3", "PYTHONUNBUFFERED=1"} <= set(seen)


def test_evaluate_passes_its_flags_on(environment, stub_programs, tmp_path):
    calls = stub_programs("python")
    reply = run("launch/evaluate.sh", "--model_path", "a b", environment=environment, cwd=tmp_path)
    assert reply.returncode == 0, reply.stderr
    assert calls.read_text().splitlines() == ["-m", "sft_dist.evaluate", "--model_path", "a b"]


def test_train_deepspeed_hands_host_file_and_environment_over(environment, stub_programs, tmp_path):
    calls = stub_programs("deepspeed", f'cat "$DS_ENV_FILE" >"{tmp_path}/exported"')
    (tmp_path / "hosts").write_text("a slots=8\nb slots=8\n")
    (tmp_path / "mine").write_text("UCX_TLS=tcp\n")
    environment |= {"WANDB_API_KEY": "secret", "WANDB_MODE": "offline", "MASTER_ADDR": "a"}
    environment["DS_ENV_FILE"] = str(tmp_path / "mine")
    reply = run(
        "launch/train_deepspeed.sh", "hosts", "--seed", "1", environment=environment, cwd=tmp_path
    )
    assert reply.returncode == 0, reply.stderr
    words = calls.read_text().splitlines()
    assert words[:2] == ["--hostfile", "hosts"]
    assert words[-4:] == ["--module", "sft_dist.train", "--seed", "1"]
    assert "--no_local_rank" in words
    assert words[words.index("--master_addr") + 1] == "a"
    exported = (tmp_path / "exported").read_text()
    assert {"UCX_TLS=tcp", "WANDB_MODE=offline"} <= set(exported.splitlines())
    assert "secret" not in exported


def test_train_deepspeed_asks_for_a_host_file(environment, stub_programs, tmp_path):
    calls = stub_programs("deepspeed")
    reply = run("launch/train_deepspeed.sh", "--seed", "1", environment=environment, cwd=tmp_path)
    assert reply.returncode == 2
    assert "host file" in reply.stderr
    assert not calls.exists()


@pytest.mark.slow
def test_torchrun_leaves_flags_alone_that_look_like_its_own(environment, tmp_path):
    # argparse would read `--log x` or `--start y` as an abbreviation of an option of torchrun.
    shutil.copytree(STUB_PACKAGE / "sft_dist", tmp_path / "sft_dist")
    arguments = ["--output_dir", str(tmp_path), "--start", "y", "--log", "x", "--no"]
    environment["NPROC_PER_NODE"] = "2"
    reply = run("launch/train_single_node.sh", *arguments, environment=environment, cwd=tmp_path)
    assert reply.returncode == 0, reply.stderr
    for rank in range(2):
        seen = json.loads((tmp_path / "seen" / f"attempt-0-rank-{rank}.json").read_text())
        assert seen["argv"] == arguments
        assert seen["environment"]["WORLD_SIZE"] == "2"


# --- slurm/, with stubs of Slurm's commands --------------------------------------------------


@pytest.fixture
def job(environment, stub_programs, tmp_path):
    """Run slurm/train.sh as Slurm would; the stub srun writes `status` as the trainer does."""
    environment |= {
        "SFT_ROOT": str(ROOT),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "sft",
        "SLURM_JOB_NODELIST": "gpu[7-8]",
    }
    requeue = stub_programs("scontrol", '[[ $1 == show ]] && cat "${0%/*}/shown" || true')
    shown = tmp_path / "bin" / "shown"

    def start(*arguments, status=None, queue="RUNNING None", restarts=0, body="", shown_job=""):
        shown.write_text(f"gpu7\ngpu8\n{shown_job}\n")
        for calls in (tmp_path / "bin").glob("*.calls"):
            calls.unlink()
        content = json.dumps({"state": status, "reason": "r"}) if status else ""
        srun = stub_programs(
            "srun",
            "while [[ $# -gt 0 ]]; do [[ $1 == --output_dir ]] && run=$2; shift; done\n"
            f'env >"{tmp_path}/seen"\n{body}\n'
            + (f"echo '{content}' >\"$run/status.json\"" if content else ""),
        )
        stub_programs("squeue", f'echo "{queue}"')
        if restarts:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        reply = run("slurm/train.sh", *arguments, environment=environment, cwd=tmp_path)
        reply.srun = srun.read_text().splitlines() if srun.exists() else []
        reply.requeued = "requeue\n4242" in requeue.read_text()
        reply.seen = dict(
            line.split("=", 1)
            for line in (tmp_path / "seen").read_text().splitlines()
            if "=" in line
        )
        return reply

    return start


def test_a_finished_run_ends_the_job_well(job):
    reply = job("--seed", "1", status="finished")
    assert (reply.returncode, reply.requeued) == (0, False), reply.stdout + reply.stderr


def test_the_trainer_gets_the_flags_a_run_directory_and_resume(job):
    reply = job("--data_path", "two words", status="finished")
    assert reply.srun[-6:] == [
        "--data_path",
        "two words",
        "--output_dir",
        "outputs/sft-4242",
        "--resume_from_checkpoint",
        "latest",
    ]
    assert reply.srun[-7] == str(ROOT / "launch" / "train_node.sh")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output_dir", "a b"], "a b"),
        (["--output-dir=x"], "x"),
        (["--output_dir", "x", "--output_dir=y"], "y"),
        (["--resume_from_checkpoint", "old/checkpoint-500/"], "old"),
        (["--resume_from_checkpoint", "old"], "old"),
        (["--resume_from_checkpoint", "old", "--output_dir", "new"], "new"),
        (["--resume_from_checkpoint", "latest"], "outputs/sft-4242"),
    ],
)
def test_the_run_directory_is_the_one_the_flags_name(job, tmp_path, arguments, expected):
    reply = job(*arguments, status="finished")
    assert reply.returncode == 0, reply.stdout + reply.stderr
    assert (tmp_path / expected / "status.json").is_file()


def test_the_users_checkpoint_counts_only_until_the_run_has_its_own(job):
    explicit = ["--output_dir", "new", "--resume_from_checkpoint", "old/checkpoint-500"]
    assert job(*explicit, status="finished").srun[-2:] == ["--output_dir", "new"]
    requeued = job(*explicit, status="finished", restarts=1)
    assert requeued.srun[-2:] == ["--resume_from_checkpoint", "latest"]


def test_the_meeting_point_is_the_first_node_and_moves_with_each_attempt(job):
    first = job(status="finished").seen
    second = job(status="finished", restarts=1).seen
    assert first["MASTER_ADDR"] == "gpu7"
    ports = [int(seen["MASTER_PORT"]) for seen in (first, second)]
    assert ports[0] != ports[1]
    assert all(20000 <= port < 30000 for port in ports)
    assert first["LOG_DIR"] != second["LOG_DIR"]


def test_a_run_that_asks_for_it_is_queued_again(job):
    reply = job(status="requeue")
    assert (reply.returncode, reply.requeued) == (0, True), reply.stdout + reply.stderr


@pytest.mark.parametrize(
    ("queue", "expected"),
    [("RUNNING None", True), ("COMPLETING TimeLimit", True), ("COMPLETING None", False)],
)
def test_a_cancelled_job_does_not_come_back(job, queue, expected):
    reply = job(status="requeue", queue=queue)
    assert reply.requeued == expected
    assert expected or "--output_dir outputs/sft-4242" in reply.stdout


def test_a_stop_file_that_a_user_made_ends_the_run_for_good(job):
    reply = job(status="requeue", body='touch "$run/STOP"; kill -USR1 "$PPID"; sleep 0.2')
    assert (reply.returncode, reply.requeued) == (0, False)
    assert "STOP" in reply.stdout


def test_requeues_are_limited(job, environment):
    environment["MAX_REQUEUES"] = "3"
    assert job(status="requeue", restarts=2).requeued
    reply = job(status="requeue", restarts=3)
    assert (reply.returncode, reply.requeued) == (1, False)


@pytest.mark.parametrize("status", ["failed", "running", None])
def test_a_broken_run_fails_the_job_and_shows_where_to_look(job, status):
    body = 'mkdir -p "$LOG_DIR/node-1/3"; echo "SomeError: x" >"$LOG_DIR/node-1/3/stderr.log"'
    reply = job(status=status, body=body)
    assert (reply.returncode, reply.requeued) == (1, False)
    assert "node-1/3/stderr.log" in reply.stdout
    assert (status or "missing") in reply.stdout


def test_a_run_killed_by_preemption_before_it_could_save_is_queued_again(job):
    assert job(status=None, shown_job="PreemptTime=2026-01-01T00:00:00").requeued
    assert not job(status=None, shown_job="PreemptTime=None").requeued
    assert not job(status="failed", shown_job="PreemptTime=2026-01-01T00:00:00").requeued


def test_a_bad_exit_code_of_a_finished_run_changes_nothing(job):
    body = 'trap "exit 143" EXIT'
    assert job(status="finished", body=body).returncode == 0


def test_what_an_earlier_attempt_left_does_not_count(job, tmp_path):
    run_dir = tmp_path / "outputs" / "sft-4242"
    run_dir.mkdir(parents=True)
    (run_dir / "status.json").write_text('{"state": "requeue", "reason": "old"}')
    (run_dir / "STOP").write_text("requeue: old\n")
    body = "if [[ -e $run/STOP ]]; then echo stop seen; fi"
    reply = job(status=None, restarts=1, body=body)
    assert (reply.returncode, reply.requeued) == (1, False)
    assert "stop seen" not in reply.stdout


@pytest.mark.parametrize("name", ["USR1", "TERM"])
def test_a_signal_becomes_a_stop_file_while_the_run_goes_on(job, tmp_path, name):
    # $PPID of the stub srun is the batch script. The run answers the file, not the signal.
    body = (
        f'kill -{name} "$PPID"; for _ in {{1..100}}; do sleep 0.05; '
        f'if [[ -e $run/STOP ]]; then cp "$run/STOP" "{tmp_path}/stop"; break; fi; done; sleep 0.2'
    )
    reply = job(status="requeue", body=body)
    assert (tmp_path / "stop").read_text() == f"requeue: Slurm sent {name}\n"
    assert reply.requeued


def test_leftovers_of_the_submitting_shell_do_not_place_the_nodes(job, environment):
    environment |= {"NODE_RANK": "0", "NNODES": "1", "MASTER_ADDR": "login", "MASTER_PORT": "1"}
    seen = job(status="finished").seen
    assert not {"NODE_RANK", "NNODES"} & set(seen)
    assert seen["MASTER_ADDR"] == "gpu7"
    assert seen["MASTER_PORT"] != "1"


def test_site_settings_reach_the_nodes(job, environment):
    environment |= {"SITE_INTERFACE": "ib0", "SITE_OFFLINE": "1", "SITE_MASTER_ADDR": "10.0.0.7"}
    seen = job(status="finished").seen
    assert seen["NCCL_SOCKET_IFNAME"] == seen["GLOO_SOCKET_IFNAME"] == "ib0"
    assert (seen["HF_HUB_OFFLINE"], seen["WANDB_MODE"]) == ("1", "offline")
    assert seen["MASTER_ADDR"] == "10.0.0.7"
    environment["SITE_INTERFACE"] = "^lo,docker0"
    seen = job(status="finished").seen
    assert seen["NCCL_SOCKET_IFNAME"] == "^lo,docker0"
    assert "GLOO_SOCKET_IFNAME" not in seen


def test_evaluation_job_runs_the_evaluation(environment, stub_programs, tmp_path):
    calls = stub_programs("python")
    environment |= {"SLURM_SUBMIT_DIR": str(ROOT)}
    reply = run("slurm/evaluate.sh", "--model_path", "m", environment=environment, cwd=tmp_path)
    assert reply.returncode == 0, reply.stderr
    assert calls.read_text().splitlines() == ["-m", "sft_dist.evaluate", "--model_path", "m"]


# --- slurm/, with a real Slurm ---------------------------------------------------------------


@pytest.fixture
def cluster(slurm, tmp_path):
    """Runs commands of the private Slurm in `tmp_path`, where the stub trainer lies."""
    shutil.copytree(STUB_PACKAGE / "sft_dist", tmp_path / "sft_dist")
    environment = {
        **{key: value for key, value in slurm.items() if not key.startswith("SITE_")},
        "SFT_ROOT": str(ROOT),
        "SITE_MASTER_ADDR": "127.0.0.1",  # the names of the virtual nodes are in no DNS
        "NPROC_PER_NODE": "2",
        "OMP_NUM_THREADS": "1",
    }

    def call(*command, behaviour="finish"):
        reply = subprocess.run(
            [str(word) for word in command],
            env=environment | {"STUB_BEHAVIOUR": behaviour},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert reply.returncode == 0, f"{command}: {reply.stdout}{reply.stderr}"
        return reply.stdout.strip()

    def submit(behaviour):
        resources = ["--nodes=2", "--gpus-per-node=0", "--mem=100M", "--time=10"]
        arguments = ["--output_dir", "run", "--data_path", "two words"]
        script = ROOT / "slurm" / "train.sh"
        return call("sbatch", "--parsable", *resources, script, *arguments, behaviour=behaviour)

    call.submit = submit
    return call


def wait_until(condition, what, seconds=90):
    for _ in range(seconds * 4):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} seconds: {what}")


def state_of(cluster, number):
    job_line = cluster("scontrol", "show", "job", "--oneliner", number)
    return re.search(r"JobState=(\w+)", job_line)[1]


@pytest.mark.slow
def test_two_real_nodes_train_are_interrupted_requeued_and_finish(cluster, tmp_path):
    status = tmp_path / "run" / "status.json"
    number = cluster.submit("wait")
    wait_until(status.is_file, "the trainer starts")
    # What Slurm sends before the time limit.
    cluster("scancel", "--signal=USR1", "--batch", number)
    wait_until(lambda: "requeue" in status.read_text(), "the trainer leaves")
    wait_until(lambda: state_of(cluster, number) == "COMPLETED", "the second attempt ends")
    output = (tmp_path / f"sft-{number}.out").read_text()
    assert json.loads(status.read_text())["state"] == "finished", output
    for attempt in range(2):
        for rank in range(4):
            path = tmp_path / "run" / "seen" / f"attempt-{attempt}-rank-{rank}.json"
            seen = json.loads(path.read_text())
            assert seen["argv"][-6:] == [
                "--data_path",
                "two words",
                "--output_dir",
                "run",
                "--resume_from_checkpoint",
                "latest",
            ]
            assert seen["environment"]["WORLD_SIZE"] == "4"
            # The second node holds ranks 2 and 3.
            assert seen["environment"]["SLURM_NODEID"] == str(rank // 2)
    logs = list((tmp_path / "run" / "logs").glob("job-*-attempt-*/node-*/*/attempt_0/*/stdout.log"))
    assert len(logs) == 8
    assert all("says hello" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_real_job_that_is_cancelled_saves_and_stays_cancelled(cluster, tmp_path):
    status = tmp_path / "run" / "status.json"
    number = cluster.submit("wait_for_term")
    wait_until(status.is_file, "the trainer starts")
    cluster("scancel", number)
    wait_until(lambda: state_of(cluster, number) == "CANCELLED", "the job ends")
    assert json.loads(status.read_text())["state"] == "requeue"
    assert "Restarts=0" in cluster("scontrol", "show", "job", "--oneliner", number)
