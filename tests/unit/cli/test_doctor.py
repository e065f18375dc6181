"""`voicethere doctor` on this machine, and what it says of machines that lack something."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.queue.spool_file import DAMAGED_SUFFIX
from voicethere.adapters.store import Store
from voicethere.cli.doctor import attempts, machine, network, running, sandbox, shown, speech, storage
from voicethere.cli.doctor.command import checks
from voicethere.cli.doctor.findings import Check, Checked, Finding, Level, in_thread, ok, run_checks
from voicethere.cli.layout import DataLayout
from voicethere.cli.main import cli
from voicethere.core.ports import Mechanism
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.queue import SessionEndedItem

NAMES = [check.name for check in checks(DataLayout(Path("data")), "127.0.0.1", 0)]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VOICETHERE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path / "data")


# ------------------------------------------------------------------ on this machine


def test_this_machine_can_run_the_platform_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("here", "temporary", "home")}
    for folder in folders.values():
        folder.mkdir()
    path = os.environ["PATH"]
    done = subprocess.run(
        [sys.executable, "-m", "voicethere.cli.main", "doctor", "--port", "0", "--json"],
        cwd=folders["here"],
        env={"PATH": path, "HOME": str(folders["home"]), "TMPDIR": str(folders["temporary"])},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert [line["name"] for line in report["checks"]] == NAMES
    levels = {line["name"]: line for line in report["checks"]}
    for name in ("confined child", "speech round trip", "udp", "port", "database", "error queue"):
        line = levels[name]
        # How fast the disk is on which tests run, and what else is writing to it, is not the doctor's doing.
        assert line["level"] == "ok" or line["todo"].startswith("The disk is slow"), line
    assert all(bool(line["todo"]) == (line["level"] != "ok") for line in report["checks"])
    assert [list(folder.iterdir()) for folder in folders.values()] == [[], [], []]


def test_it_fails_where_the_port_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "voicethere.cli.doctor.command.checks",
        lambda layout, host, port: [
            check for check in checks(layout, host, port) if check.name in ("python", "port")
        ],
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        result = CliRunner().invoke(cli, ["doctor", "--port", number, "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["python", "ok"], ["port", "failed"]]
    assert number in rows[1][2]
    assert "--port" in rows[1][3]
    assert result.stderr == "voicethere: `voicethere up` does not work here yet: port.\n"


def test_importing_everything_may_take_its_time_on_a_busy_machine() -> None:
    limits = {check.name: check.seconds for check in checks(DataLayout(Path("data")), "127.0.0.1", 0)}
    assert limits["packages"] >= 60


# ------------------------------------------------------------------ checks that come to nothing


async def _first(check: Check) -> Checked:
    (line,) = [line async for line in run_checks([check])]
    return line


def _check(run: Callable[[], object], *, needed: bool = True, seconds: float = 10.0) -> Check:
    return Check(name="thing", run=run, needed=needed, todo="Do this.", seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(("needed", "level"), [(True, Level.FAILED), (False, Level.WARNING)])
async def test_whatever_a_check_raises_is_a_finding(needed: bool, level: Level) -> None:
    async def raises() -> Finding:
        raise ValueError("no such thing")

    line = await _first(_check(raises, needed=needed))
    assert (line.level, line.found, line.todo) == (level, "ValueError: no such thing", "Do this.")


async def test_a_check_that_takes_too_long_is_given_up() -> None:
    given_up = asyncio.Event()

    async def waits() -> Finding:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    line = await _first(_check(waits, seconds=0.01))
    assert line.found == "no answer within 0.01 s"
    assert given_up.is_set()


async def test_a_thread_that_hangs_holds_up_nothing() -> None:
    hangs = threading.Event()
    try:
        line = await _first(_check(lambda: in_thread(hangs.wait), seconds=0.01))
        assert line.level is Level.FAILED
        assert line.found.startswith("no answer")
    finally:
        hangs.set()


async def test_a_package_that_is_missing_is_named() -> None:
    async def imports() -> Finding:
        raise ModuleNotFoundError("No module named 'litestar'", name="litestar")

    line = await _first(_check(imports))
    assert "litestar is not installed" in line.found
    assert "pip install 'voicethere[server" in line.todo


async def test_the_next_checks_run_all_the_same() -> None:
    async def raises() -> Finding:
        raise OSError

    async def works() -> Finding:
        return ok("fine")

    lines = [line async for line in run_checks([_check(raises), _check(works)])]
    assert [line.level for line in lines] == [Level.FAILED, Level.OK]


# ------------------------------------------------------------------ the machine


def test_an_old_python_and_another_system() -> None:
    assert machine.judge_python((3, 10), "linux").level is Level.FAILED
    assert machine.judge_python((3, 13), "darwin").level is Level.FAILED
    assert machine.judge_python((3, 11), "linux").level is Level.OK


def test_little_memory() -> None:
    mib = 1024 * 1024
    assert machine.judge_memory(300 * mib, 1000 * mib).level is Level.WARNING
    assert machine.judge_memory(600 * mib, 1000 * mib).level is Level.OK


def test_extras_that_are_not_whole() -> None:
    missing = machine.missing_by_extra(
        [
            "msgspec>=0.19",
            "click>=8.1; extra == 'server'",
            "no-such-package-there-is>=1; extra == 'speech'",
            'no-such-package-there-is; (python_version > "3") and extra == "client"',
        ]
    )
    assert missing == {
        "server": [],
        "speech": ["no-such-package-there-is"],
        "client": ["no-such-package-there-is"],
    }
    finding = machine.judge_packages(missing)
    assert finding.level is Level.WARNING
    assert "complete: server" in finding.found
    assert finding.todo == "pip install 'voicethere[speech,client]'"
    assert machine.judge_packages({"server": [], "speech": [], "client": []}).level is Level.OK


# ------------------------------------------------------------------ the sandbox


def test_attempts_that_nothing_denies_are_reported(tmp_path: Path) -> None:
    """Outside of the sandbox all of them succeed: what the doctor says of a denial is the sandbox's doing."""
    file = tmp_path / "file"
    file.write_text("ours")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from voicethere.cli.doctor.attempts import main; main({theirs.fileno()})",
            ],
            pass_fds=[theirs.fileno()],
            env={attempts.FORBIDDEN_FILE: str(file)},
            check=True,
            timeout=30,
        )
        (length,) = struct.unpack(">I", ours.recv(4))
        stopped = json.loads(ours.recv(length))
    assert stopped == dict.fromkeys(attempts.ATTEMPTS)
    finding = sandbox.judge_attempts(stopped, 5.0)
    assert finding.level is Level.WARNING
    assert all(name in finding.found for name in attempts.ATTEMPTS)


def test_an_attempt_that_was_not_made_is_not_allowed() -> None:
    assert sandbox.judge_attempts({}, 5.0).level is Level.OK
    one = dict.fromkeys(attempts.ATTEMPTS, "PermissionError") | {"using the network": None}
    finding = sandbox.judge_attempts(one, 5.0)
    assert finding.level is Level.WARNING
    assert "allowed to it: using the network" in finding.found


def test_walls_that_are_missing() -> None:
    there = Mechanism(name="seccomp", available=True)
    second = Mechanism(name="landlock-tcp", available=False, note="ABI 3")
    missing = Mechanism(name="landlock", available=False, note="not in this kernel")
    names = frozenset({"landlock-tcp"})
    assert sandbox.judge_walls([there, second], names).level is Level.OK
    finding = sandbox.judge_walls([there, second, missing], names)
    assert finding.level is Level.WARNING
    assert "not in this kernel" in finding.found
    assert "--strict-sandbox" in finding.todo


# ------------------------------------------------------------------ speech


@pytest.mark.parametrize(
    ("text", "voiced", "level"),
    [
        ("good morning", True, Level.OK),
        ("good morning", False, Level.WARNING),
        ("open the door", True, Level.WARNING),
        ("", True, Level.WARNING),
    ],
)
def test_what_was_understood(text: str, voiced: bool, level: Level) -> None:
    assert speech.judge_round_trip(text, voiced=voiced, seconds=0.1).level is level


# ------------------------------------------------------------------ the network


def test_a_machine_with_loopback_only() -> None:
    finding = network.judge_addresses(["127.0.0.1"], loopback="127.0.0.1")
    assert finding.level is Level.WARNING
    assert "--host-address" in finding.todo
    assert network.judge_addresses(["192.0.2.1"], loopback="127.0.0.1").level is Level.OK


def test_packets_that_do_not_come_back() -> None:
    assert network.judge_udp({"192.0.2.1": None}).level is Level.OK
    assert network.judge_udp({"192.0.2.1": None, "::2": "denied"}).level is Level.WARNING
    finding = network.judge_udp({"192.0.2.1": "denied"})
    assert finding.level is Level.FAILED
    assert "192.0.2.1 (denied)" in finding.found


class _Answers(BaseHTTPRequestHandler):
    status: ClassVar[int] = 401
    body: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[_Answers], int]]:
    answers = type("Answers", (_Answers,), {})
    listening = HTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answers, listening.server_port
    listening.shutdown()
    thread.join()
    listening.server_close()


async def test_a_platform_that_runs_already(server: tuple[type[_Answers], int]) -> None:
    answers, number = server
    body = {"error": {"code": HttpErrorCode.UNAUTHORIZED.value, "message": "no", "request_id": "r"}}
    answers.body = json.dumps(body).encode()
    finding = await network.port("127.0.0.1", number)
    assert finding.level is Level.OK
    assert "VoiceThere" in finding.found


@pytest.mark.parametrize(("status", "body"), [(401, b"<html>"), (200, b'{"projects": []}'), (401, b"\xff")])
async def test_another_program_on_the_port(
    server: tuple[type[_Answers], int], status: int, body: bytes
) -> None:
    answers, number = server
    answers.status, answers.body = status, body
    assert (await network.port("127.0.0.1", number)).level is Level.FAILED


async def test_an_address_that_is_not_this_machines() -> None:
    finding = await network.port("198.51.100.1", 8080)
    assert finding.level is Level.FAILED
    assert "--host" in finding.todo


# ------------------------------------------------------------------ storage


async def test_a_data_directory_that_cannot_be() -> None:
    finding = await storage.data_directory(DataLayout(Path("/proc/voicethere/data")))
    assert finding.level is Level.FAILED
    assert "--data-dir" in finding.todo


async def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert (await storage.data_directory(DataLayout(tmp_path / "data"))).level is Level.FAILED


async def test_a_data_directory_that_others_may_look_into(layout: DataLayout) -> None:
    layout.prepare()
    assert (await storage.data_directory(layout)).level is Level.OK
    layout.root.chmod(0o755)
    finding = await storage.data_directory(layout)
    assert finding.level is Level.WARNING
    assert finding.todo == f"chmod 700 {layout.root}"


@pytest.mark.parametrize(("free", "level"), [(50, Level.FAILED), (500, Level.WARNING), (5000, Level.OK)])
def test_a_disk_that_is_almost_full(free: int, level: Level) -> None:
    found = storage.judge_data_directory(Path("data"), free_mib=free, there=True, private=True)
    assert found.level is level


async def test_what_is_there_is_looked_at_only(layout: DataLayout) -> None:
    layout.prepare()
    store = await Store.open(layout.database_url)
    await store.aclose()
    queue = EmbeddedErrorQueue(layout.queue)
    waiting = SessionEndedItem(
        session_id="s",
        project_id="p",
        end_reason="error",
        failed=True,
        ended_at="2026-06-19T12:00:00.000Z",
    )
    await queue.put([waiting, waiting])
    await queue.aclose()
    database = layout.database.read_bytes()
    of_database, of_queue = await storage.database(layout), await storage.queue(layout)
    assert of_database.level is Level.OK
    assert "journal wal" in of_database.found
    assert "voicethere.db has" in of_database.found
    assert of_queue.level is Level.OK
    assert "2 wait in queue.db" in of_queue.found
    assert layout.database.read_bytes() == database
    again = EmbeddedErrorQueue(layout.queue)
    assert await again.depth() == 2
    await again.aclose()


async def test_what_the_spool_could_not_read_is_named(layout: DataLayout) -> None:
    layout.sessions_spool.mkdir(parents=True)
    piece = layout.sessions_spool / f"1-2-3.spool{DAMAGED_SUFFIX}"
    piece.write_text("half a record")
    finding = await storage.queue(layout)
    assert finding.level is Level.WARNING
    assert str(piece) in finding.found
    assert piece.exists()


async def test_files_that_are_broken(layout: DataLayout) -> None:
    layout.prepare()
    layout.database.write_bytes(b"no database " * 1000)
    layout.queue.write_bytes(b"no queue " * 1000)
    for finding in (await storage.database(layout), await storage.queue(layout)):
        assert finding.level is Level.FAILED
        assert str(layout.root) in finding.found
        assert "Move the file away" in finding.todo
    assert layout.database.read_bytes() == b"no database " * 1000


def test_a_disk_on_which_the_log_does_not_work() -> None:
    assert storage.judge_database(None, mode="delete", milliseconds=1.0).level is Level.FAILED
    assert storage.judge_database(None, mode="wal", milliseconds=900.0).level is Level.WARNING
    assert storage.judge_database(None, mode="wal", milliseconds=9.0).level is Level.OK


# ------------------------------------------------------------------ a running platform


async def test_without_a_key_there_is_nothing_to_reach() -> None:
    assert (await running.platform()).level is Level.OK


async def test_a_platform_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # it does not listen, and nobody else can on its port
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VOICETHERE_API_BASE", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("VOICETHERE_API_KEY", "vth_key")
        finding = await running.platform()
    assert finding.level is Level.WARNING
    assert "cannot reach" in finding.found
    assert "voicethere up" in finding.todo


async def test_a_platform_that_answers(
    monkeypatch: pytest.MonkeyPatch, server: tuple[type[_Answers], int]
) -> None:
    answers, number = server
    answers.status, answers.body = 200, b'{"projects": []}'
    monkeypatch.setenv("VOICETHERE_API_BASE", f"http://127.0.0.1:{number}")
    monkeypatch.setenv("VOICETHERE_API_KEY", "vth_key")
    finding = await running.platform()
    assert finding.level is Level.OK
    assert "0 projects" in finding.found


# ------------------------------------------------------------------ the report

HOSTILE = Checked(
    name="port", level=Level.FAILED, found="taken by \x1b[31mme\n", todo="Stop\tit.", seconds=0.1
)


def test_what_is_printed_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    shown.plain(HOSTILE)
    assert capsys.readouterr().out == "port\tfailed\ttaken by \\x1b[31mme\\n\tStop\\tit.\n"


def test_a_terminal_shows_what_to_do_below_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    pretty = shown.Pretty([_check(lambda: None)])
    pretty.line(HOSTILE)
    lines = capsys.readouterr().out.splitlines()
    assert "✗ port" in lines[0]
    assert "taken by \\x1b[31mme\\n" in lines[0]
    assert "→ Stop\\tit." in lines[1]


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([Level.OK], "with everything"),
        ([Level.OK, Level.WARNING], "works here; look at: thing"),
        ([Level.WARNING, Level.FAILED], "does not work here yet: thing"),
    ],
)
def test_the_summary(levels: list[Level], words: str) -> None:
    lines = [Checked(name="thing", level=level, found="", todo="", seconds=0.0) for level in levels]
    assert words in shown.summary(lines)
    assert shown.as_json(lines)["ok"] is (Level.FAILED not in levels)
