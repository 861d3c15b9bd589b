"""Several hosts without Slurm: network namespaces, launch/train_node.sh, the real trainer."""

import functools
import json
import re
import time

import pytest

from launch.virtual_hosts import virtual_hosts, why_not
from tests.scripts import ssh_hosts
from tests.scripts.several_hosts import ROOT, Job, environment_of, make_inputs

REASON = why_not()
STOP_SECONDS = 60
"""Within this the other hosts have stopped after one was killed (docs/slurm.md)."""

TIMEOUT = 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"needs network namespaces: {REASON}"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"), num_train=96)


@pytest.fixture(scope="module")
def unbroken_losses(inputs, tmp_path_factory):
    """Gives the losses of two ranks on one host, by engine; each engine is run once."""

    @functools.cache
    def losses(engine):
        job = Job(inputs, tmp_path_factory.mktemp("unbroken") / engine, engine)
        with virtual_hosts(1) as hosts:
            job.finish(job.start(hosts, ranks_per_host=2))
        assert max(job.losses()) == 12
        return job.losses()

    return losses


def status_of(job):
    return json.loads((job.run_dir / "status.json").read_text())


@pytest.mark.parametrize(
    "engine", ["deepspeed", pytest.param("fsdp", marks=pytest.mark.exhaustive)]
)
def test_a_host_is_killed_and_the_rest_resumes_on_the_same_curve(
    inputs, tmp_path, unbroken_losses, engine
):
    with virtual_hosts(2) as hosts:
        broken = Job(inputs, tmp_path / "broken", engine)
        launchers = broken.start(hosts, ranks_per_host=1)
        broken.wait_until_step(launchers, 4)
        hosts[1].kill()
        assert launchers[0].wait(timeout=STOP_SECONDS) != 0
        assert (
            "another rank has left without a word"
            in (tmp_path / "broken" / "host-0.log").read_text()
        )
        assert status_of(broken)["state"] == "failed"
        # The host that is left takes both ranks; two hosts and one give the same bits.
        broken.finish(broken.start(hosts[:1], ranks_per_host=2))
    assert broken.losses() == unbroken_losses(engine)


def test_a_host_that_is_cut_off_is_missed_on_both_sides_within_the_timeout(inputs, tmp_path):
    with virtual_hosts(2) as hosts:
        job = Job(inputs, tmp_path / "cut", "fsdp", collective_timeout=TIMEOUT)
        launchers = job.start(hosts, ranks_per_host=1)
        job.wait_until_step(launchers, 4)
        hosts[1].cut_off()
        began = time.monotonic()
        codes = [launcher.wait(timeout=2 * STOP_SECONDS) for launcher in launchers]
        assert 0 not in codes
        assert time.monotonic() - began > TIMEOUT
        here, there = (path.read_text() for path in sorted((tmp_path / "cut").glob("host-*.log")))
        missed = r"rank 0 has not moved .* no sign of life of rank 1, last seen"
        assert re.search(missed, here), here[-3000:]
        assert "the launcher's store does not answer: the host of rank 0" in there, there[-3000:]
        assert "no sign of life of rank 1" in status_of(job)["reason"]
        job.finish(job.start(hosts[:1], ranks_per_host=2))
    assert list(job.losses()) == list(range(1, 13))


def start_by_deepspeed(job, hosts, programs):
    """Start `job` from the first host by DeepSpeed's launcher, one rank on each host."""
    hostfile, exported = job.folder / "hosts", job.folder / "exported"
    hostfile.write_text("".join(f"{host.address} slots=1\n" for host in hosts))
    # What a user has in ~/.deepspeed_env, because the launcher carries it to the other hosts.
    exported.write_text("GLOO_SOCKET_IFNAME=eth0\n")
    environment = environment_of(hosts) | {"DS_ENV_FILE": str(exported)}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    command = [str(ROOT / "launch" / "train_deepspeed.sh"), str(hostfile), *job.flags()]
    return hosts[0].start(command, environment, job.folder / "launcher.log")


@pytest.mark.skipif(bool(ssh_hosts.why_not()), reason=ssh_hosts.why_not())
def test_deepspeeds_launcher_over_ssh_and_torchrun_are_equal_in_result(
    inputs, tmp_path, unbroken_losses
):
    (tmp_path / "ssh").mkdir()
    job = Job(inputs, tmp_path / "launched", "deepspeed")
    with (
        virtual_hosts(2) as hosts,
        ssh_hosts.reachable_by_ssh(hosts, tmp_path / "ssh") as programs,
    ):
        job.finish([start_by_deepspeed(job, hosts, programs)])
    log = job.logs()
    assert all(f"{host.address}: " in log for host in hosts)  # pdsh names who said a line
    assert job.losses() == unbroken_losses("deepspeed")


def test_virtual_hosts_are_gone_afterwards_and_see_only_one_another(tmp_path):
    import subprocess

    with virtual_hosts(3) as hosts:
        for other in hosts[1:]:
            ping = ["bash", "-c", f"timeout 5 bash -c '</dev/tcp/{other.address}/9' 2>&1"]
            log = tmp_path / f"{other.name}.log"
            hosts[0].start(ping, {"PATH": "/usr/bin:/bin"}, log).wait(timeout=30)
            assert "Connection refused" in log.read_text(), "the host is there; nobody listens"
        sleeper = hosts[2].start(["sleep", "600"], {"PATH": "/usr/bin:/bin"}, tmp_path / "s.log")
    assert sleeper.wait(timeout=10) != 0
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert not [host.name for host in hosts if host.name in names]
