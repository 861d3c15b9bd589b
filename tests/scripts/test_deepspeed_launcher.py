"""launch/train_deepspeed.sh for real: DeepSpeed's launcher, pdsh and ssh between virtual hosts."""

import os
import sys
from pathlib import Path

import pytest

from launch.virtual_hosts import virtual_hosts, why_not
from tests.scripts import ssh_hosts
from tests.scripts.several_hosts import ROOT, Job, make_inputs

REASON = why_not() or ssh_hosts.why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"needs hosts that ssh reaches: {REASON}"),
]


def deepspeed_launcher(job, hosts, programs):
    """Start `job` from the first host, one rank on each."""
    hostfile, exported = job.folder / "hosts", job.folder / "exported"
    hostfile.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    # What a user has in ~/.deepspeed_env, because the launcher carries it to the other hosts.
    exported.write_text("GLOO_SOCKET_IFNAME=eth0\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER_", "WANDB"))}
    environment = {
        **clean, "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MASTER_ADDR": hosts[0].address, "DS_ENV_FILE": str(exported), "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }  # fmt: skip
    command = [str(ROOT / "launch" / "train_deepspeed.sh"), str(hostfile), *job.flags()]
    return hosts[0].start(command, environment, job.folder / "launcher.log")


def test_deepspeeds_launcher_and_torchrun_are_equal_in_result(tmp_path):
    inputs = make_inputs(tmp_path, num_train=96)
    with (
        virtual_hosts(2) as hosts,
        ssh_hosts.reachable_by_ssh(hosts, tmp_path) as programs,
    ):
        torchrun = Job(inputs, tmp_path / "torchrun", "deepspeed")
        torchrun.finish(torchrun.start(hosts[:1], ranks_per_host=2))
        launched = Job(inputs, tmp_path / "launched", "deepspeed")
        launched.finish([deepspeed_launcher(launched, hosts, programs)])
    log = launched.logs()
    assert all(f"{host.address}: " in log for host in hosts)  # pdsh names who said a line
    assert max(launched.losses()) == 12
    assert launched.losses() == torchrun.losses()
