"""The commands against a real control plane behind a real uvicorn; only the sandbox is a fake."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pty
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.http.auth import BearerAuth
from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store.store import Store
from voicethere.cli.main import cli
from voicethere.core.clock import SystemClock
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.control import ControlPlane, control_app
from voicethere.testing.keys import issue_key
from voicethere.testing.queue import sample_error
from voicethere.testing.verifier import FakeBundleVerifier
from voicethere.wire.control_plane import DeploymentStatus, KeyKind
from voicethere.wire.queue import SuppressedItem, encode

GOOD = "from voicethere.agent import define_agent\ndefine_agent()\n"
HOSTILE = "Boom \x1b[31mred\x1b[0m\ttab\nsecond line \x9b2J \u202etxt"


@dataclass
class Server:
    """A control plane in a thread of its own."""

    loop: asyncio.AbstractEventLoop
    store: Store
    base: str
    key: str

    def call(self, work: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
        """Run `work` where the store lives."""
        return asyncio.run_coroutine_threadsafe(work(self.store), self.loop).result(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("control")
    listener = socket.create_server(("127.0.0.1", 0))
    ready: threading.Event = threading.Event()
    found: list[Server] = []
    uvicorns: list[uvicorn.Server] = []

    async def serve() -> None:
        store = await Store.open(f"sqlite:///{folder}/voicethere.db")
        queue = EmbeddedErrorQueue(folder / "queue.db")
        plane = ControlPlane(
            store=store,
            bundles=DirectoryBundleStore(folder / "bundles"),
            verifier=FakeBundleVerifier({b"nowhere": "ModuleNotFoundError: No module named 'nowhere'"}),
            queue=queue,
            clock=SystemClock(),
        )
        org_id = await store.ensure_default_org()
        token = await issue_key(store, org_id, KeyKind.ADMIN)
        app = control_app(plane, BearerAuth(store.find_key))
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
        uvicorns.append(running)
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        found.append(Server(asyncio.get_running_loop(), store, base, token))
        ready.set()  # the socket listens already: a request waits until it is served
        await running.serve(sockets=[listener])
        await queue.aclose()
        await store.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    with capture_logs():  # the server shares this process with the commands; its log is not their output
        yield found[0]
    uvicorns[0].should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the server's key in the environment."""
    for name in ("VOICETHERE_PROJECT_CONFIG", "VOICETHERE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOICETHERE_API_BASE", server.base)
    monkeypatch.setenv("VOICETHERE_API_KEY", server.key)
    monkeypatch.setenv("VOICETHERE_CREDENTIALS_PATH", str(tmp_path / "credentials.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), input=stdin, prog_name="voicethere")


def ok(*arguments: str, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, status: int = 1) -> str:
    """The one line on stderr of a command that must fail."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    return lines[-1]


@pytest.fixture
def project(folder: Path, request: pytest.FixtureRequest) -> str:
    """The id of a fresh project, active in the working folder."""
    return ok("projects", "create", request.node.name[:60], "--use").strip()


# ------------------------------------------------------------------ keys and places


def test_login_checks_the_key_and_keeps_it_private(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOICETHERE_API_KEY")
    monkeypatch.delenv("VOICETHERE_API_BASE")
    path = Path(os.environ["VOICETHERE_CREDENTIALS_PATH"])
    assert "unknown, expired or revoked" in refused(
        "login", "--api-base", server.base, "--api-key", "vth_wrong"
    )
    assert not path.exists()
    ok("login", "--api-base", server.base, stdin=f"{server.key}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"api_base": server.base, "api_key": server.key}
    assert os.listdir(path.parent).count("credentials.json") == 1
    assert not [name for name in os.listdir(path.parent) if name.startswith(".credentials")]
    ok("projects", "list")
    monkeypatch.setenv("VOICETHERE_API_KEY", "vth_other")
    assert "voicethere login" in refused("projects", "list")


def test_a_base_may_name_the_api_path(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICETHERE_API_BASE", server.base + "/api/v1/")
    ok("projects", "list")


def test_projects_are_used_by_slug_name_or_id(folder: Path) -> None:
    project_id = ok("projects", "create", "Useful Thing").strip()
    for reference in ("useful-thing", "Useful Thing", project_id):
        ok("projects", "use", reference)
        config = json.loads((folder / ".voicethere" / "config.json").read_text())
        assert config == {"project_id": project_id, "project_slug": "useful-thing", "name": "Useful Thing"}
    below = folder / "deep" / "er"
    below.mkdir(parents=True)
    os.chdir(below)
    assert project_id in ok("projects", "show")
    ok("projects", "create", "Useful Thing")
    assert "several projects" in refused("projects", "use", "Useful Thing")
    assert "no project 'nothing'" in refused("projects", "use", "nothing")
    assert "--yes" in refused("projects", "delete", project_id)
    ok("projects", "delete", project_id, "--yes")
    assert "no active project" in refused("projects", "show")


def test_without_an_active_project_a_command_says_how_to_choose_one(folder: Path) -> None:
    assert "voicethere projects use" in refused("projects", "errors", "list")


# ------------------------------------------------------------------ errors


async def _session_with_errors(store: Store, project_id: str, session_id: str, messages: list[str]) -> None:
    await store.create_session(
        session_id=session_id,
        project_id=project_id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
    )
    items = [
        sample_error(session_id, project_id, message=message, occurred_at=f"2026-11-20T12:00:0{n}.000Z")
        for n, message in enumerate(messages)
    ]
    await store.commit_batch(items, [])


def test_errors_list_piped_has_exactly_the_contracts_columns(server: Server, project: str) -> None:
    session = "0123456789abcdef"
    server.call(lambda store: _session_with_errors(store, project, session, ["first", HOSTILE]))
    piped = ok("projects", "errors", "list")
    assert piped.endswith("\n")
    newest, oldest = (line.split("\t") for line in piped.splitlines())
    assert [len(newest), len(oldest)] == [5, 5]
    assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", oldest[0])
    assert oldest[1:] == ["0123456789ab", "AGENT_HANDLER_FAILED", "agent", "first"]
    shown = "Boom \\x1b[31mred\\x1b[0m\\ttab\\nsecond line \\x9b2J \\u202etxt"
    assert newest[4] == shown
    one = ok("projects", "errors", "list", "--session", session)
    assert [line.split("\t")[1:] for line in one.splitlines()] == [
        ["AGENT_HANDLER_FAILED", "agent", "first"],
        ["AGENT_HANDLER_FAILED", "agent", shown],
    ]
    assert len(ok("projects", "errors", "list", "--limit", "1").splitlines()) == 1
    document = ok("projects", "errors", "list", "--json")
    assert [row["message"] for row in json.loads(document)["errors"]] == [HOSTILE, "first"]
    assert not re.search("[\x1b\x9b\u202e]", document)
    assert "no such session" in refused("projects", "errors", "list", "--session", "unknown")
    assert run("projects", "errors", "list", "--limit", "0").exit_code == 2


def test_suppressed_errors_are_told_on_stderr_and_in_json(server: Server, project: str) -> None:
    async def suppress(store: Store) -> None:
        await _session_with_errors(store, project, "a-storm", ["first"])
        item = SuppressedItem(
            id=f"storm-{project}",
            project_id=project,
            code=SessionErrorCode.AGENT_HANDLER_FAILED,
            count=1234,
            first_at=iso_from_epoch(time.time() - 60),
            last_at=iso_from_epoch(time.time() - 30),
        )
        await store.commit_batch([item], [])

    server.call(suppress)
    result = run("projects", "errors", "list")
    assert len(result.stdout.splitlines()) == 1
    assert re.fullmatch(r"… and 1,234 more AGENT_HANDLER_FAILED between \S+Z and \S+Z\n", result.stderr), (
        result.stderr
    )
    (told,) = json.loads(ok("projects", "errors", "list", "--json"))["suppressed"]
    assert (told["code"], told["count"]) == ("AGENT_HANDLER_FAILED", 1234)


# ------------------------------------------------------------------ dead letters


@pytest.fixture
def buried(server: Server, folder: Path) -> list[int]:
    """Two dead letters, the first of them no item; the numbers of all there are now, the oldest first."""

    async def bury(store: Store) -> list[int]:
        for letter in await store.dead_letters(limit=100):
            await store.delete_dead_letter(letter.number)
        unknown = encode(sample_error("no-such-session", "no-such-project"))
        await store.commit_batch([], [(b"{\x1b[31m junk", "not an item"), (unknown, "no such session")])
        return sorted(letter.number for letter in await store.dead_letters(limit=100))

    numbers: list[int] = server.call(bury)
    return numbers


def test_dead_letters_are_listed_and_shown(buried: list[int], folder: Path) -> None:
    first, second = buried
    newest, oldest = (line.split("\t") for line in ok("dead-letters", "list").splitlines())
    assert [newest[0], oldest[0]] == [str(second), str(first)]
    assert oldest[2:] == ["11", "not an item", "{\\x1b[31m junk"]
    page = run("dead-letters", "list", "--limit", "1")
    assert f"--before {second}" in page.stderr
    assert ok("dead-letters", "list", "--before", str(second)).split("\t")[0] == str(first)
    assert json.loads(ok("dead-letters", "list", "--json"))["count"] == 2
    shown = run("dead-letters", "show", str(first))
    assert shown.stdout == "{\\x1b[31m junk\n"
    assert "not an item" in shown.stderr
    assert json.loads(ok("dead-letters", "show", str(first), "--json"))["text"] == "{\x1b[31m junk"
    raw = run("dead-letters", "show", str(first), "--raw")
    assert raw.stdout_bytes == b"{\x1b[31m junk"
    assert "no such dead letter" in refused("dead-letters", "show", "999999")
    for number in ("0", "x", str(2**63)):
        refused("dead-letters", "show", number, status=2)
    assert "no such session" in on_a_terminal("dead-letters", "list")


def test_dead_letters_are_replayed(server: Server, buried: list[int], folder: Path, project: str) -> None:
    first, second = buried
    refused("dead-letters", "replay", status=2)
    refused("dead-letters", "replay", str(first), "--all", status=2)
    assert "still no item" in refused("dead-letters", "replay", str(first))
    result = run("dead-letters", "replay", "--all")
    assert (result.exit_code, result.stdout) == (1, f"{second}\n")
    assert "still no item" in result.stderr
    assert "1 could not be replayed" in result.stderr.splitlines()[-1]
    server.call(lambda store: _session_with_errors(store, project, f"corrected-{project}", []))
    Path("item.json").write_bytes(encode(sample_error(f"corrected-{project}", project)))
    assert ok("dead-letters", "replay", str(first), "--item", "item.json") == f"{first}\n"
    assert ok("dead-letters", "list") == ""
    assert ok("dead-letters", "replay", "--all") == ""
    Path("junk.json").write_text("{")
    assert "no JSON" in refused("dead-letters", "replay", "1", "--item", "junk.json")
    assert "cannot read" in refused("dead-letters", "replay", "1", "--item", "missing.json")
    refused("dead-letters", "replay", "--all", "--item", "item.json", status=2)


def test_dead_letters_are_deleted(buried: list[int]) -> None:
    for number in buried:
        ok("dead-letters", "delete", str(number))
    assert "no such dead letter" in refused("dead-letters", "delete", str(buried[0]))


def test_errors_list_on_a_terminal_is_a_clean_table(server: Server, project: str) -> None:
    server.call(
        lambda store: _session_with_errors(store, project, "tty-session-1234", [HOSTILE, "[bold]no[/]"])
    )
    output = on_a_terminal("projects", "errors", "list")
    assert "AGENT_HANDLER_FAILED" in output
    assert "message" in output
    assert "[bold]no[/]" in output
    assert "\\x1b[31m" in output
    assert "\x1b[31m" not in output
    assert "\x9b" not in output
    assert "\t" not in output


def on_a_terminal(*arguments: str) -> str:
    """The output of a command whose standard output is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    command = [sys.executable, "-m", "voicethere.cli.main", *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment)
    os.close(follower)
    chunks = []
    try:
        while chunk := os.read(leader, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # Linux says EIO when the other end is closed
    finally:
        os.close(leader)
    _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0, complaints.decode()
    return b"".join(chunks).decode()


# ------------------------------------------------------------------ settings


def test_settings_are_listed_and_set_by_their_type(project: str) -> None:
    listed = dict(line.split("\t") for line in ok("projects", "session-settings", "list").splitlines())
    assert listed["error_message"] == "Sorry, something went wrong."
    assert listed["idle_timeout_enabled"] == "true"
    for word, value in (("no", "false"), ("1", "true"), ("FALSE", "false"), ("yes", "true"), ("0", "false")):
        ok("projects", "session-settings", "set", "idle_timeout_enabled", word)
        assert f"idle_timeout_enabled\t{value}" in ok("projects", "session-settings", "list")
    ok("projects", "session-settings", "set", "idle_timeout_seconds", "90")
    ok("projects", "session-settings", "set", "error_message", "Sorry, try again.")
    settings = json.loads(ok("projects", "session-settings", "list", "--json"))["settings"]
    assert (settings["idle_timeout_seconds"], settings["error_message"]) == (90, "Sorry, try again.")
    ok("projects", "session-settings", "set", "error_message", "")
    refused("projects", "session-settings", "set", "idle_timeout_enabled", "maybe", status=2)
    refused("projects", "session-settings", "set", "idle_timeout_seconds", "soon", status=2)
    assert "from 30 to 120" in refused("projects", "session-settings", "set", "idle_timeout_seconds", "5")
    assert "no setting 'nope'" in refused("projects", "session-settings", "set", "nope", "1")
    ok("projects", "settings", "set", "mode", "data")
    assert "mode\tdata" in ok("projects", "settings", "list")


def test_project_settings_of_many_kinds_are_typed(project: str) -> None:
    origins = "https://shop.example, http://localhost:3000"
    said = run("projects", "settings", "set", "allowed_origins", origins)
    assert said.stderr == "allowed_origins is https://shop.example,http://localhost:3000 now.\n"
    ok("projects", "settings", "set", "retention_days", "30")
    assert "from the next deploy on" in run("projects", "settings", "set", "warm_pool_enabled", "yes").stderr
    listed = dict(line.split("\t") for line in ok("projects", "settings", "list").splitlines())
    assert listed["allowed_origins"] == "https://shop.example,http://localhost:3000"
    assert (listed["retention_days"], listed["warm_pool_enabled"]) == ("30", "true")
    assert "is empty now" in run("projects", "settings", "set", "allowed_origins", "").stderr
    assert json.loads(ok("projects", "settings", "list", "--json"))["settings"]["allowed_origins"] == []
    assert "0 to 3650" in refused("projects", "settings", "set", "retention_days", "4000")
    assert "leave the list empty" in refused("projects", "settings", "set", "allowed_origins", "*")


def test_variables_and_secrets(project: str) -> None:
    ok("projects", "environment", "set", "AGENT_REGION", "eu")
    assert ok("projects", "environment", "list") == "AGENT_REGION\teu\n"
    ok("projects", "environment", "unset", "AGENT_REGION")
    assert "AGENT_" in refused("projects", "environment", "set", "REGION", "eu")
    ok("projects", "secrets", "set", "API_TOKEN", stdin="hunter2-hunter2-hunter2\n")
    listed = ok("projects", "secrets", "list")
    assert listed == "API_TOKEN\t••••ter2\n"
    ok("projects", "secrets", "unset", "API_TOKEN")
    assert ok("projects", "secrets", "list") == ""


# ------------------------------------------------------------------ builds and deploys


def test_upload_promote_and_deploy(folder: Path, project: str) -> None:
    (folder / "agent.py").write_text(GOOD)
    build_id = ok("build", "upload", "agent.py", "-m", "first").strip()
    row = ok("build", "list").rstrip("\n").split("\t")
    assert [row[0], row[2], row[5]] == [build_id, "valid", "first"]
    assert "promote one first" in refused("deploy")
    assert ok("build", "promote").strip() == build_id
    assert re.fullmatch(r"[0-9a-f-]{36}\n", ok("deploy", "--wait"))
    assert "\tyes\t" in next(line for line in ok("projects", "list").splitlines() if project in line)
    ok("undeploy")
    assert "not deployed" in refused("undeploy")
    assert "before the active one" in refused("build", "rollback")
    ok("projects", "use", project, "--bundle", "agent.py")
    ok("build", "upload", "--promote")


def test_a_forced_deploy_is_waited_for(
    server: Server, folder: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def complete(store: Store) -> None:
        for job in await store.active_deployments():
            await store.finish_deployment(job.id, status=DeploymentStatus.COMPLETED, error=None, agent=None)

    (folder / "agent.py").write_text(GOOD)
    ok("build", "upload", "agent.py", "--promote")
    assert "New sessions run with it" not in run("deploy", "--mode", "force").stderr
    moments = iter(range(0, 1000, 50))
    clock = SimpleNamespace(monotonic=lambda: next(moments), sleep=lambda seconds: None)
    monkeypatch.setattr("voicethere.cli.deploy.time", clock)
    late = run("deploy", "--mode", "force", "--wait", "--timeout", "100")
    assert late.exit_code == 1
    assert "still active after 100 s; it goes on" in late.stderr.splitlines()[-1]
    clock.sleep = lambda seconds: server.call(complete)
    done = run("deploy", "--mode", "force", "--wait")
    assert (done.exit_code, done.stderr.count("New sessions run with it")) == (0, 1)
    assert done.stderr.endswith(": completed.\n")


def test_a_bundle_that_does_not_load_is_a_failure_with_its_reason(folder: Path, project: str) -> None:
    (folder / "bad.py").write_text("import nowhere\n")
    result = run("build", "upload", "bad.py")
    assert result.exit_code == 1
    assert "No module named 'nowhere'" in result.stderr.splitlines()[-1]
    assert 'File "agent.py", line 1' in result.stderr
    assert "cannot read" in refused("build", "upload", "missing.py")
    (folder / "big.py").write_bytes(b"#" * (12 * 1024 * 1024 + 1))
    assert "10 MiB" in refused("build", "upload", "big.py")
    refused("build", "upload", status=2)


def test_sessions_are_listed(server: Server, project: str) -> None:
    server.call(lambda store: _session_with_errors(store, project, "listed-session", ["x"]))
    (row,) = ok("sessions", "list").splitlines()
    assert row.split("\t")[:2] == ["listed-session", "active"]
    assert "`start`" in refused("sessions", "list", "--start", "yesterday")


def test_keys_are_created_listed_and_revoked(project: str, server: Server) -> None:
    key = ok("api-keys", "create", "web", "--kind", "client").strip()
    assert key.startswith("vthc_")
    listed = ok("api-keys", "list")
    assert key not in listed
    (row,) = [line.split("\t") for line in listed.splitlines() if line.split("\t")[4] == project]
    assert row[1:3] == ["web", "client"]
    assert "client key" in refused("login", "--api-base", server.base, "--api-key", key)
    ok("api-keys", "revoke", row[0])
    assert "no such key" in refused("api-keys", "revoke", "nothing")


# ------------------------------------------------------------------ the process


def test_the_process_exits_with_the_contracts_statuses(folder: Path) -> None:
    command = [sys.executable, "-m", "voicethere.cli.main"]

    def status(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert status("projects", "list")[0] == 0
    assert status("projects", "show", "nothing")[0] == 1
    assert status("projects", "frobnicate")[0] == 2


def test_an_oversized_upload_over_a_real_socket_is_answered(server: Server, project: str) -> None:
    """A server that closes at once, with bytes unread, resets the connection of a client that still sends."""
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=30)
    head = b'--x\r\nContent-Disposition: form-data; name="bundle"; filename="agent.py"\r\n\r\n'
    headers = {
        "authorization": f"Bearer {server.key}",
        "content-type": "multipart/form-data; boundary=x",
        "connection": "close",
    }
    path = f"/api/v1/projects/{project}/builds"
    connection.request("POST", path, head + b"#" * 20_000_000 + b"\r\n--x--\r\n", headers)
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == "PAYLOAD_TOO_LARGE"
    connection.close()
