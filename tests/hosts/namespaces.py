"""Network namespaces: hosts with an address, an interface and a loopback of their own, on one machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from servers.postgres import free_port


@dataclass(frozen=True)
class Host:
    """Where programs may run: their commands begin with ``prefix``."""

    prefix: Sequence[str]
    address: str  # of the host
    gateway: str  # of this machine, as the host sees it


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two network namespaces. Raises OSError where the machine does not allow them."""
    with _namespace(1) as one, _namespace(2) as another:
        yield one, another


@contextmanager
def _namespace(number: int) -> Iterator[Host]:
    if os.geteuid() or not shutil.which("ip"):
        raise OSError("network namespaces need root and the command ip")
    key = free_port()  # nobody else has it now, so that tests beside this one have other names and addresses
    name, outside, inside = f"afterwards-{key}", f"aw{key}o", f"aw{key}i"
    net = f"10.{200 + key // 2**14}.{key // 64 % 256}.{key % 64 * 4}".rpartition(".")
    address, gateway = (f"{net[0]}.{int(net[2]) + last}" for last in (2, 1))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", name)
        _ip("addr", "add", f"{gateway}/30", "dev", outside)
        _ip("link", "set", outside, "up")
        _ip("-n", name, "addr", "add", f"{address}/30", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield Host(("ip", "netns", "exec", name), address, gateway)
    finally:
        _ip("netns", "del", name)  # and the pair of interfaces with it


def _ip(*arguments: str) -> None:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")
