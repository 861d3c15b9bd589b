"""Hosts on one machine: network namespaces with addresses of their own, for tests and trials.

Needs root and iproute2. Each host has one interface, `eth0`, on a bridge that joins them; they
share the file system, as nodes of a cluster do, and nothing else of the network.
"""

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_numbers = itertools.count()


def why_not() -> str:
    """What keeps this machine from having virtual hosts; empty when nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 (the command ip) is not installed"
    probe = f"sft{os.getpid()}p"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"this machine makes no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


class VirtualHost:
    """One host: a namespace, an address, the processes in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Run a command on this host, its output in `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env=dict(environment), stdout=file, stderr=file,
            )  # fmt: skip

    def output(self, command: Sequence[str]) -> str:
        """Run a command on this host to its end; what it printed."""
        found = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return found.stdout

    def kill(self) -> None:
        """End every process of this host at once, as by the kernel."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        for pid in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut_off(self) -> None:
        """Pull the cable: nobody hears that the host is gone, as with a loss of power."""
        _ip("-n", self.name, "link", "set", "eth0", "down")


@contextmanager
def virtual_hosts(count: int) -> Iterator[list[VirtualHost]]:
    """`count` hosts that see one another; gone at the end, with their processes."""
    unique = f"{os.getpid() % 100000}x{next(_numbers)}"
    bridge, net = f"b{unique}", f"10.{os.getpid() % 200 + 20}.{next(_numbers) % 250}"
    switch = f"sw{unique}"  # the bridge has a namespace too: the machine's own network stays as is
    hosts = [VirtualHost(f"h{unique}-{i}", f"{net}.{i + 1}") for i in range(count)]
    made: list[str] = []
    try:
        for name in (switch, *(host.name for host in hosts)):
            _ip("netns", "add", name)
            made.append(name)
        _ip("-n", switch, "link", "add", bridge, "type", "bridge")
        _ip("-n", switch, "link", "set", bridge, "up")
        for number, host in enumerate(hosts):
            _connect(host, switch, bridge, f"p{number}")
        yield hosts
    finally:
        for host in hosts:
            if host.name in made:
                host.kill()
        for name in made:
            _ip("netns", "del", name)


def _connect(host: VirtualHost, switch: str, bridge: str, port: str) -> None:
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0",
        "netns", host.name)  # fmt: skip
    _ip("-n", switch, "link", "set", port, "master", bridge, "up")
    _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", host.name, "link", "set", device, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
