"""Hosts on one machine: network namespaces on a bridge, which itself is in a namespace of its own.

So nothing of it is seen outside, and removing the namespaces removes everything. Knows cables and addresses;
what runs on a host is somebody else's. Needs root and the capability NET_ADMIN.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

NAMESPACES = Path("/run/netns")
SUBNET = "10.77.7"
"""Seen by no other namespace: it may be in use elsewhere."""
_SWITCH = "sw"
_NOBODY = "02:00:00:00:00:fe"


class NoNetwork(Exception):
    """There can be no namespaces here; the words say what is missing."""


class Network:
    """`hosts` get addresses in their order, the first one `10.77.7.2`.

    Example:
        >>> network = Network("vtt123-", ["data", "r1"])
        >>> network.create()
        >>> subprocess.run([*network.enter("r1"), "ping", "-c1", network.address("data")])
    """

    def __init__(self, prefix: str, hosts: Sequence[str]) -> None:
        self._prefix = prefix
        self._addresses = {host: f"{SUBNET}.{number}" for number, host in enumerate(hosts, 2)}

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return self._addresses[host]

    def namespace(self, host: str) -> str:
        """The name of its network namespace."""
        return self._prefix + host

    def enter(self, host: str) -> list[str]:
        """The beginning of a command that is to run on this host."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace(host)}", "--"]

    def create(self) -> None:
        """Make all of it. What is left behind is removed by `remove_namespaces`.

        Raises:
            NoNetwork: this machine, or this user, cannot.
        """
        if os.geteuid() != 0:
            raise NoNetwork("network namespaces need root: run this as root (with the capability NET_ADMIN)")
        switch = self.namespace(_SWITCH)
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in self._addresses.items():
            name = self.namespace(host)
            _ip("netns", "add", name)
            self._without_ipv6(host)
            _ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")

    def pull_cable(self, host: str) -> None:
        """Nothing reaches this host, and nothing leaves it."""
        _ip("-n", self.namespace(_SWITCH), "link", "set", host, "down")

    def plug_cable(self, host: str) -> None:
        """Undo `pull_cable`; harmless otherwise."""
        _ip("-n", self.namespace(_SWITCH), "link", "set", host, "up")

    def lose_packets(self, host: str, to: str) -> None:
        """What `host` sends to `to` is addressed to a machine that is not there. Nobody is told."""
        _ip(
            *("-n", self.namespace(host), "neighbour", "replace", self.address(to)),
            *("lladdr", _NOBODY, "dev", "eth0", "nud", "permanent"),
        )

    def find_packets(self, host: str, to: str) -> None:
        """Undo `lose_packets`; harmless otherwise."""
        name, address = self.namespace(host), self.address(to)
        if address in _ip("-n", name, "neighbour", "show", "dev", "eth0", "nud", "permanent"):
            _ip("-n", name, "neighbour", "del", address, "dev", "eth0")

    def processes(self) -> dict[str, list[int]]:
        """What runs on each host now."""
        return {host: pids_in(self.namespace(host)) for host in self._addresses}

    def _without_ipv6(self, host: str) -> None:
        # One address a host: a link-local one more would only be one more candidate to try.
        setting = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true"
        _run([*self.enter(host), "sh", "-c", setting])


def pids_in(namespace: str) -> list[int]:
    """The processes in a namespace."""
    return [int(pid) for pid in _ip("netns", "pids", namespace).split()]


def namespaces_of(prefix: str) -> list[str]:
    """Those whose names begin so."""
    if not NAMESPACES.exists():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith(prefix))


def remove_namespace(name: str) -> None:
    """With its interfaces, once nothing runs in it."""
    _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoNetwork(
            f"there is no `{command[0]}` on this machine; Debian: apt-get install iproute2 util-linux"
        ) from None
    if done.returncode != 0:
        why = done.stderr.strip() or f"status {done.returncode}"
        hint = ""
        if "Operation not permitted" in why or "Permission denied" in why:
            hint = ". Root alone is not enough: the capabilities NET_ADMIN and SYS_ADMIN are needed"
        raise NoNetwork(f"`{' '.join(command)}` failed: {why}{hint}")
    return done.stdout
