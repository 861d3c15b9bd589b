"""A Slurm of virtual nodes on this machine, for tests and trials; nothing of it stays.

    python -m launch.virtual_slurm [--nodes 2]                       # a shell in which sbatch works
    python -m launch.virtual_slurm -- sbatch --wait --gpus-per-node=0 slurm/train.sh FLAGS ...

Needs Debian's slurm-wlm and munge (`apt-get install slurm-wlm munge`), and no root. The nodes are
daemons of this machine: they share its cores and files, and have no GPUs.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sft_dist.runtime.launch_environment import free_ports

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")
START_SECONDS, END_SECONDS = 30.0, 10.0
KILL_WAIT = 15
"""Seconds that a job has after SIGTERM."""
CPUS_PER_NODE, MEMORY_MB = 2, 4000
"""Of each node as Slurm sees it, whatever the machine has."""


def main() -> int:
    """The command: the exit code of what ran in the cluster."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("command", nargs="*", help="what to run; default: a shell")
    options = parser.parse_args()
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    command = options.command or [os.environ.get("SHELL", "/bin/bash")]
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as directory,
        virtual_slurm(Path(directory), nodes=options.nodes) as environment,
    ):
        return subprocess.run(command, env=environment, check=False).returncode


def why_not() -> str:
    """What keeps this machine from having a virtual Slurm; empty when nothing does."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return (
            f"a real Slurm is needed (apt-get install slurm-wlm munge); not installed: "
            f"{', '.join(missing)}"
        )
    return ""


@contextmanager
def virtual_slurm(directory: Path, *, nodes: int = 2) -> Iterator[dict[str, str]]:
    """Bring the cluster up; the environment in which its commands work.

    Args:
        directory: for keys, state and logs of the daemons.
        nodes: how many, called n1, n2, ...

    Raises:
        RuntimeError: when it does not come up, with the ends of the daemons' logs.
    """
    environment = {
        **os.environ,
        "PATH": _path(),
        "SLURM_CONF": str(directory / "slurm.conf"),
        "SITE_MASTER_ADDR": "127.0.0.1",  # the names of the virtual nodes are in no DNS
    }
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate(_configure(directory, nodes)):
            with (directory / f"{number}-{command[0]}.log").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(0.3)
        _wait_for_nodes(environment, directory, nodes)
        yield environment
    finally:
        _end_jobs(environment)  # one that was left behind would outlive the daemons
        _end_daemons(daemons)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _end_jobs(environment: Mapping[str, str]) -> None:
    subprocess.run(["scancel", "--partition=debug"], env=environment, capture_output=True)
    deadline = time.monotonic() + KILL_WAIT + 5
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True)
        if not left.stdout.strip():
            return
        time.sleep(0.5)


def _end_daemons(daemons: Sequence[subprocess.Popen[bytes]]) -> None:
    for daemon in reversed(daemons):
        daemon.terminate()
    for daemon in reversed(daemons):
        try:
            daemon.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:  # a slurmd at a job's end may wait for the controller
            daemon.kill()
            daemon.wait()


def _configure(directory: Path, nodes: int) -> list[list[str]]:
    """Write the configuration; the commands of the daemons, in the foreground."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    for name in ("state", "munge", *(f"spool-{name}" for name in names)):
        (directory / name).mkdir(mode=0o755)
    key, munge_socket = directory / "munge" / "key", directory / "munge" / "socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (directory / "slurm.conf").write_text(_slurm_conf(directory, names, munge_socket))
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge_socket}"]
    munged += [f"--{name}-file={directory}/munge/{name}" for name in ("pid", "log", "seed")]
    return [munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in names)]


def _slurm_conf(directory: Path, names: Sequence[str], munge_socket: Path) -> str:
    host = socket.gethostname().split(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    control, *ports = free_ports(1 + len(names))
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={control}",
        "AuthType=auth/munge",
        # A requeued job waits for as long as a credential lives: 5 instead of 120 seconds.
        f"AuthInfo=socket={munge_socket},cred_expire=5",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        f"StateSaveLocation={directory}/state",
        f"SlurmdSpoolDir={directory}/spool-%n",
        f"SlurmctldPidFile={directory}/slurmctld.pid",
        f"SlurmdPidFile={directory}/slurmd.%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "MpiDefault=none",
        "SchedulerParameters=sched_interval=1,bf_interval=1",
        "ReturnToService=2",
        f"KillWait={KILL_WAIT}",
        "SlurmdParameters=config_overrides",
    ]
    for name, port in zip(names, ports, strict=True):
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MB} State=UNKNOWN"
        )
    lines.append(f"PartitionName=debug Nodes={','.join(names)} Default=YES MaxTime=INFINITE")
    return "\n".join(lines) + "\n"


def _wait_for_nodes(environment: Mapping[str, str], directory: Path, nodes: int) -> None:
    command = ["sinfo", "--noheader", "--format=%T %D"]
    deadline = time.monotonic() + START_SECONDS
    while True:
        reply = subprocess.run(command, env=environment, capture_output=True, text=True)
        if reply.stdout.strip() == f"idle {nodes}":
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    logs = "\n".join(f"{log.name}: {log.read_text()[-800:]}" for log in directory.glob("*.log"))
    raise RuntimeError(f"Slurm did not come up: {reply.stdout}{reply.stderr}\n{logs}")


if __name__ == "__main__":
    sys.exit(main())
