"""`voicethere demo` and `faults` where the platform of their own cannot start: one line says why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from voicethere.cli.main import cli
from voicethere.cli.starting import starting
from voicethere.testing import ports
from voicethere.testing.platform_process import PlatformFailed

NO_PORT = "the platform could not be started on this machine: no free port among 15000 to 31999"
NO_REDIS = "there is no redis-server on this machine; Debian: apt-get install redis-server"
ENGINES = "--engines=distributed"


@pytest.fixture
def no_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ATTEMPTS", 0)
    # What is installed must not matter: the search for a port comes before anything is started.
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("no_ports")
def test_the_demo_says_that_no_port_is_free() -> None:
    result = CliRunner().invoke(cli, ["demo", ENGINES, "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["ok"], report["problems"]) == (False, [NO_PORT])


@pytest.mark.usefixtures("no_ports")
@pytest.mark.parametrize("fault", ["raise_in_session_end", "runner_killed"])
def test_the_faults_say_that_no_port_is_free(fault: str) -> None:
    result = CliRunner().invoke(cli, ["faults", fault, ENGINES])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"voicethere: {NO_PORT}\n"


@pytest.mark.usefixtures("no_redis")
def test_the_faults_say_what_is_not_installed() -> None:
    result = CliRunner().invoke(cli, ["faults", "raise_in_session_end", ENGINES])
    assert result.exit_code == 1
    assert result.stderr == f"voicethere: {NO_REDIS}\n"


@contextlib.asynccontextmanager
async def never_ready() -> AsyncIterator[None]:
    raise TimeoutError
    yield


async def test_a_process_that_is_not_ready_in_time_has_words() -> None:
    with pytest.raises(PlatformFailed, match=r"on this machine: a process of it was not ready in time$"):
        async with starting(never_ready()):
            pass


async def test_what_happens_on_a_platform_that_has_started_is_its_own_error() -> None:
    with pytest.raises(ConnectionResetError):
        async with starting(contextlib.nullcontext()):
            raise ConnectionResetError
