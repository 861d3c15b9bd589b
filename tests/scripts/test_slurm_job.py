"""slurm/*.sh with stubs of the programs of Slurm."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(run, environment, stub_programs, tmp_path):
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
        reply = run("slurm/train.sh", *arguments)
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
    environment["SITE_INTERFACE"] = "^docker0"
    seen = job(status="finished").seen
    assert seen["NCCL_SOCKET_IFNAME"] == "^docker0"
    assert "GLOO_SOCKET_IFNAME" not in seen


# evaluate.sh


@pytest.fixture
def evaluation(run, environment, stub_programs):
    """Run slurm/evaluate.sh as Slurm would; the stub python gets `signal` through the script."""
    environment |= {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "4242"}
    requeue = stub_programs("scontrol")

    def start(*arguments, signal="", queue="RUNNING None", restarts=0, code=0):
        stub_programs("squeue", f'echo "{queue}"')
        wait = (
            f'trap "exit 143" TERM; kill -{signal} "$PPID"; sleep 20 >/dev/null 2>&1 & wait'
            if signal
            else ""
        )
        python = stub_programs("python", f"{wait}\nexit {code}")
        environment["SLURM_RESTART_COUNT"] = str(restarts)
        reply = run("slurm/evaluate.sh", *arguments)
        reply.python = python.read_text().splitlines()
        reply.requeued = requeue.exists() and "requeue\n4242" in requeue.read_text()
        return reply

    return start


@pytest.mark.parametrize("code", [0, 3])
def test_an_evaluation_ends_as_its_command_does(evaluation, code):
    reply = evaluation("--model_path", "m", code=code)
    assert reply.returncode == code, reply.stderr
    assert reply.python == ["-m", "sft_dist.evaluate", "--model_path", "m"]
    assert not reply.requeued


@pytest.mark.parametrize("arguments", [("--serve", "run"), ("--serve=run",)])
def test_a_server_whose_time_ends_is_queued_again(evaluation, arguments):
    reply = evaluation(*arguments, signal="USR1")
    assert (reply.returncode, reply.requeued) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "case"),
    [
        (("--model_path", "m", "--serve_idle_timeout", "9"), {"signal": "USR1"}),
        (("--serve", "run"), {"signal": "TERM"}),  # scancel
        (("--serve", "run"), {"signal": "USR1", "queue": "COMPLETING None"}),
        (("--serve", "run"), {"signal": "USR1", "restarts": 100}),
        (("--serve", "run"), {"code": 143}),
    ],
    ids=["no server", "cancelled", "ending already", "too often", "failed by itself"],
)
def test_what_is_not_a_server_whose_time_ends_stays_ended(evaluation, arguments, case):
    reply = evaluation(*arguments, **case)
    assert (reply.returncode, reply.requeued) == (143, False)
