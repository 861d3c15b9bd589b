"""The scripts run against stubs of the programs they call, or against a private Slurm."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clean_environment():
    """The environment of this process without what would steer the scripts."""
    steering = ("SLURM", "SITE_", "NCCL", "CUDA", "MASTER_", "SFT_", "PYTORCH_", "WANDB_", "HF_")
    single = {"NNODES", "NODE_RANK", "NPROC_PER_NODE", "OMP_NUM_THREADS", "LOG_DIR", "DS_ENV_FILE"}
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(steering) and key not in single
    }
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept


@pytest.fixture
def environment(clean_environment, tmp_path):
    """The stubs come first on PATH; the site has no virtual environment of its own."""
    return {
        **clean_environment,
        "PATH": f"{tmp_path}/bin:{clean_environment['PATH']}",
        "SITE_VENV": "",
    }


@pytest.fixture
def run(environment, tmp_path):
    """Run a script of the repository in `tmp_path`."""

    def call(script, *arguments):
        return subprocess.run(
            [str(ROOT / script), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture
def stub_programs(tmp_path):
    """Make programs that record their arguments, one a line, in CALLS/<name>, then run `body`."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(name, body=""):
        path = folder / name
        path.write_text(
            f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >>"{folder}/{name}.calls"\n{body}\n'
        )
        path.chmod(0o755)
        return folder / f"{name}.calls"

    add("nvidia-smi", "exit 9")  # as on a machine without a driver, wherever the tests run
    return add


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Environment of a private two-node Slurm on this machine; skips where it is not installed."""
    needed = ("sbatch", "slurmctld", "slurmd", "munged")
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in needed if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"a real Slurm is needed; not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons = []
    try:
        for command in _configure(folder):
            log = open(folder / f"{len(daemons)}-{command[0]}.log", "w")  # noqa: SIM115
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(0.3)
        _wait_for_two_nodes(environment, folder)
        yield environment
    finally:
        # A job that a failed test left behind would outlive the daemons.
        subprocess.run(["scancel", "--partition=debug"], env=environment, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            _end(daemon)


def _end(daemon):
    """A slurmd in the middle of a job's end may wait for a controller that is gone."""
    try:
        daemon.wait(timeout=10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _configure(folder):
    """Writes the configuration; the commands of the daemons, in the foreground."""
    host = socket.gethostname().split(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    control, *nodes = _free_ports(3)
    for name in ("state", "spool-n1", "spool-n2", "munge"):
        (folder / name).mkdir(mode=0o755)
    key, munge_socket = folder / "munge" / "key", folder / "munge" / "socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={control}",
        "AuthType=auth/munge",
        # A requeued job waits for as long as a credential lives: 5 instead of 120 seconds.
        f"AuthInfo=socket={munge_socket},cred_expire=5",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "MpiDefault=none",
        "SchedulerParameters=sched_interval=1,bf_interval=1",
        "ReturnToService=2",
        "KillWait=15",
        "SlurmdParameters=config_overrides",
        *(
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
            "RealMemory=4000 State=UNKNOWN"
            for i, port in enumerate(nodes, 1)
        ),
        "PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge_socket}"]
    munged += [f"--{name}-file={folder}/munge/{name}" for name in ("pid", "log", "seed")]
    return [munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for_two_nodes(environment, folder):
    for _ in range(60):
        command = ["sinfo", "--noheader", "--format=%T %D"]
        reply = subprocess.run(command, env=environment, capture_output=True, text=True)
        if reply.stdout.strip() == "idle 2":
            return
        time.sleep(0.5)
    logs = "\n".join(f"{log.name}: {log.read_text()[-800:]}" for log in folder.glob("*.log"))
    pytest.fail(f"Slurm did not come up: {reply.stdout}{reply.stderr}\n{logs}")
