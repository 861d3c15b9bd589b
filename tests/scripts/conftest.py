"""The scripts run against stubs of the programs they call, or against a private Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.virtual_slurm import virtual_slurm, why_not

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
    if reason := why_not():
        pytest.skip(reason)
    # Without what this shell's own site or job has set.
    foreign = [key for key in os.environ if key.startswith(("SITE_", "SLURM_J"))]
    with virtual_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        kept = {key: value for key, value in environment.items() if key not in foreign}
        yield kept | {"SITE_MASTER_ADDR": environment["SITE_MASTER_ADDR"]}
