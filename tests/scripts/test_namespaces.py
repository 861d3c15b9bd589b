"""Several hosts without Slurm: network namespaces, launch/train_node.sh, the real trainer."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.virtual_hosts import virtual_hosts, why_not
from sft_dist.tracking.record import last_by, read_rows

ROOT = Path(__file__).parents[2]
REASON = why_not()
STOP_SECONDS = 60
"""Within this the other hosts have stopped after one was killed (docs/slurm.md)."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"needs network namespaces: {REASON}"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    from launch.demo.model import write_model
    from launch.demo.problems import make_problems, write_math_directory

    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "model", 0)
    train, test = make_problems(0, num_train=96, num_test=4)
    write_math_directory(folder / "data", train, test=test)
    return folder


class Job:
    """Launches of one run on virtual hosts."""

    def __init__(self, inputs, folder, engine):
        self.inputs, self.folder, self.engine = inputs, folder, engine
        self.run_dir = folder / "run"
        folder.mkdir()

    def start(self, hosts, ranks_per_host):
        """The launchers, one a host."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER_"))}
        environment = {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NNODES": str(len(hosts)), "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29511",
            "NPROC_PER_NODE": str(ranks_per_host), "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0", "WANDB_MODE": "disabled",
        }  # fmt: skip
        return [
            host.start(
                [str(ROOT / "launch" / "train_node.sh"), *self.flags()],
                {**environment, "NODE_RANK": str(number)},
                self.folder / f"host-{number}.log",
            )
            for number, host in enumerate(hosts)
        ]

    def flags(self):
        settings = {
            "model_path": self.inputs / "model", "data_path": self.inputs / "data",
            "output_dir": self.run_dir, "resume_from_checkpoint": "latest",
            "engine": self.engine, "global_batch_size": 8, "num_epochs": 1, "save_steps": 3,
            "max_seq_length": 128, "eval_placement": "off", "learning_rate": "1e-3",
            "wandb_mode": "disabled", "cache_dir": self.inputs / "cache",
        }  # fmt: skip
        return [text for name, value in settings.items() for text in (f"--{name}", str(value))]

    def losses(self):
        rows = last_by(read_rows(self.run_dir), "step")
        return {step: row["train/loss"] for step, row in rows.items()}

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))


def wait_until_step(job, launchers, step, seconds=240):
    deadline = time.monotonic() + seconds
    while max(job.losses(), default=0) < step:
        assert all(launcher.poll() is None for launcher in launchers), job.logs()
        assert time.monotonic() < deadline, job.logs()
        time.sleep(0.05)


def finish(job, launchers, seconds=300):
    for launcher in launchers:
        assert launcher.wait(timeout=seconds) == 0, job.logs()


@pytest.mark.parametrize("engine", ["deepspeed", "fsdp"])
def test_a_host_is_killed_and_the_rest_resumes_on_the_same_curve(inputs, tmp_path, engine):
    with virtual_hosts(2) as hosts:
        whole = Job(inputs, tmp_path / "whole", engine)
        finish(whole, whole.start(hosts[:1], ranks_per_host=2))
        broken = Job(inputs, tmp_path / "broken", engine)
        launchers = broken.start(hosts, ranks_per_host=1)
        wait_until_step(broken, launchers, 4)
        hosts[1].kill()
        began = time.monotonic()
        with_error = launchers[0].wait(timeout=STOP_SECONDS)
        print(f"{engine}: stopped {time.monotonic() - began:.1f} s after the kill")
        assert with_error != 0
        assert "onnection" in (tmp_path / "broken" / "host-0.log").read_text()
        assert '"failed"' in (broken.run_dir / "status.json").read_text()
        # The host that is left takes both ranks; two hosts and one give the same bits.
        finish(broken, broken.start(hosts[:1], ranks_per_host=2))
    assert broken.losses() == whole.losses()
    assert max(whole.losses()) == 12
    reported = subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert hosts[0].name not in reported
