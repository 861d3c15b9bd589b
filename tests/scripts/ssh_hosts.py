"""A real sshd on virtual hosts, and the client's side of it, all keys made on the spot."""

import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "pdsh")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SERVER = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PermitRootLogin yes
StrictModes no
UsePAM no
"""
CLIENT = """
IdentityFile {folder}/user_key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


def why_not():
    """What keeps hosts from being reached by pdsh over ssh; empty when nothing does."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install pdsh openssh-server)"
    return ""


@contextmanager
def reachable_by_ssh(hosts, folder):
    """Serve ssh on each host; yields the directory whose `ssh` knows the keys, for PATH."""
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "server.conf").write_text(SERVER.format(folder=folder))
    (folder / "client.conf").write_text(CLIENT.format(folder=folder))
    programs = folder / "bin"
    programs.mkdir()
    # DeepSpeed calls a plain `ssh` to see whether the first host answers.
    wrapper = programs / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {_system("ssh")} -F {folder}/client.conf "$@"\n')
    wrapper.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights; it does not make it
    command = [_system("sshd"), "-D", "-e", "-f", str(folder / "server.conf")]
    servers = [
        host.start(command, {"PATH": SYSTEM_PATH}, folder / f"{host.name}-sshd.log")
        for host in hosts
    ]
    try:
        for host in hosts:
            _wait_for(hosts[0], host, wrapper, folder / "client.log")
        yield programs
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def _wait_for(caller, host, ssh, log, seconds=20):
    deadline = time.monotonic() + seconds
    while caller.start([str(ssh), host.address, "true"], {"PATH": SYSTEM_PATH}, log).wait() != 0:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _system(name):
    found = shutil.which(name, path=SYSTEM_PATH)
    assert found is not None
    return found
