"""Several hosts without Slurm: network namespaces, launch/train_node.sh, the real trainer."""

import json

import pytest

from launch.virtual_hosts import virtual_hosts, why_not
from tests.scripts.several_hosts import Job, make_inputs

REASON = why_not()
STOP_SECONDS = 60
"""Within this the other hosts have stopped after one was killed (docs/slurm.md)."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"needs network namespaces: {REASON}"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"), num_train=96)


@pytest.mark.parametrize("engine", ["deepspeed", "fsdp"])
def test_a_host_is_killed_and_the_rest_resumes_on_the_same_curve(inputs, tmp_path, engine):
    with virtual_hosts(2) as hosts:
        whole = Job(inputs, tmp_path / "whole", engine)
        whole.finish(whole.start(hosts[:1], ranks_per_host=2))
        broken = Job(inputs, tmp_path / "broken", engine)
        launchers = broken.start(hosts, ranks_per_host=1)
        broken.wait_until_step(launchers, 4)
        hosts[1].kill()
        assert launchers[0].wait(timeout=STOP_SECONDS) != 0
        assert "onnection" in (tmp_path / "broken" / "host-0.log").read_text()
        assert json.loads((broken.run_dir / "status.json").read_text())["state"] == "failed"
        # The host that is left takes both ranks; two hosts and one give the same bits.
        broken.finish(broken.start(hosts[:1], ranks_per_host=2))
    assert broken.losses() == whole.losses()
    assert max(whole.losses()) == 12


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
