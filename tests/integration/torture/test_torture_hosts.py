"""Hosts, disks and the janitor of the torture run, for real; skipped where namespaces cannot be made."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.torture.disk import Disk
from tools.torture.janitor import clean
from tools.torture.network import Network, NoNetwork, namespaces_of, pids_in

PORT = 7000
_LISTEN = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
print("listens", flush=True)
while True:
    server.accept()[0].close()
"""
_CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
"""


class Hosts:
    def __init__(self, network: Network, prefix: str) -> None:
        self.network = network
        self.prefix = prefix
        self.listener = subprocess.Popen(
            [*network.enter("data"), sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE, text=True
        )
        assert self.listener.stdout is not None
        assert self.listener.stdout.readline() == "listens\n"

    def reaches(self, within: float = 10.0) -> bool:
        """Whether r1 can connect to what listens on data; a lost packet is tried again for a while."""
        command = [*self.network.enter("r1"), sys.executable, "-c", _CONNECT]
        done = subprocess.run(
            [*command, self.network.address("data"), str(PORT), str(within)], capture_output=True, check=False
        )
        return done.returncode == 0


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    prefix = f"vtx{secrets.token_hex(3)}-"
    network = Network(prefix, ["data", "r1"])
    try:
        try:
            network.create()
        except NoNetwork as problem:
            pytest.skip(str(problem))
        made = Hosts(network, prefix)
        yield made
    finally:
        clean(prefix, tmp_path, keep=True)
    made.listener.communicate()


def test_a_pulled_cable_cuts_a_host_off_until_it_is_plugged_in(hosts: Hosts) -> None:
    assert hosts.reaches()
    hosts.network.pull_cable("r1")
    assert not hosts.reaches(within=0.5)
    hosts.network.plug_cable("r1")
    assert hosts.reaches()


def test_lost_packets_cut_one_host_off_from_one_other(hosts: Hosts) -> None:
    hosts.network.lose_packets("r1", "data")
    assert not hosts.reaches(within=0.5)
    hosts.network.find_packets("r1", "data")
    assert hosts.reaches()
    hosts.network.find_packets("r1", "data")  # harmless


def test_the_janitor_ends_what_runs_and_removes_every_namespace(hosts: Hosts, tmp_path: Path) -> None:
    assert hosts.listener.pid in pids_in(hosts.network.namespace("data"))
    clean(hosts.prefix, tmp_path, keep=True)
    assert hosts.listener.wait(timeout=10) == -9
    assert namespaces_of(hosts.prefix) == []


def test_a_run_that_is_killed_is_cleaned_up_behind(hosts: Hosts, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    disk = Disk(folder / "disk", 1024 * 1024)
    disk.mount()
    assert os.path.ismount(disk.place)
    janitor = subprocess.Popen(
        [sys.executable, "-m", "tools.torture.janitor", f"--prefix={hosts.prefix}", f"--folder={folder}"],
        stdin=subprocess.PIPE,
    )
    assert janitor.stdin is not None
    janitor.stdin.close()  # as the kernel does with the end of the run
    assert janitor.wait(timeout=20) == 0
    assert namespaces_of(hosts.prefix) == []
    assert not folder.exists()


def test_a_disk_is_filled_to_the_last_byte_and_emptied_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", 1024 * 1024)
    try:
        disk.mount()
    except OSError as problem:
        pytest.skip(str(problem))
    try:
        disk.fill()
        assert disk.free_bytes == 0
        with pytest.raises(OSError, match="No space left"):
            (disk.place / "more").write_bytes(b"x")
        disk.empty()
        (disk.place / "more").write_bytes(b"x")
    finally:
        clean("vtx-none-", tmp_path, keep=True)
