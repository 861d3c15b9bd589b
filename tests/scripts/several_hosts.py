"""Launches of one run of the real trainer on virtual hosts."""

import os
import sys
import time
from pathlib import Path

from sft_dist.tracking.record import last_by, read_rows

ROOT = Path(__file__).parents[2]


def make_inputs(folder, num_train):
    """The demo's model and `num_train` of its problems."""
    from launch.demo.model import write_model
    from launch.demo.problems import make_problems, write_math_directory

    write_model(folder / "model", 0)
    train, test = make_problems(0, num_train=num_train, num_test=4)
    write_math_directory(folder / "data", train, test=test)
    return folder


def environment_of(hosts):
    """What any launcher of a job on these hosts is given, rank 0 on the first."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER_"))}
    return {
        **clean, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MASTER_ADDR": hosts[0].address, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
    }  # fmt: skip


class Job:
    """A run directory in `folder`, and the launchers that work on it."""

    def __init__(self, inputs, folder, engine, **settings):
        self.inputs, self.folder, self.engine, self.settings = inputs, folder, engine, settings
        self.run_dir = folder / "run"
        folder.mkdir()

    def start(self, hosts, ranks_per_host, port=29511):
        """The launchers, one a host."""
        environment = {
            **environment_of(hosts), "NNODES": str(len(hosts)), "MASTER_PORT": str(port),
            "NPROC_PER_NODE": str(ranks_per_host), "GLOO_SOCKET_IFNAME": "eth0",
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
            **self.settings,
        }  # fmt: skip
        return [text for name, value in settings.items() for text in (f"--{name}", str(value))]

    def losses(self):
        rows = last_by(read_rows(self.run_dir), "step")
        return {step: row["train/loss"] for step, row in rows.items()}

    def logs(self):
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))

    def wait_until_step(self, launchers, step, seconds=240):
        deadline = time.monotonic() + seconds
        while max(self.losses(), default=0) < step:
            assert all(launcher.poll() is None for launcher in launchers), self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def finish(self, launchers, seconds=300):
        for launcher in launchers:
            assert launcher.wait(timeout=seconds) == 0, self.logs()
