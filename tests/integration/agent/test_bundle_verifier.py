"""Verifying bundles in a child: a report for every bundle, good or bad, and nothing left over."""

from __future__ import annotations

import io
import zipfile

import pytest

from voicethere.core.ports import BundleReport, BundleVerifier
from voicethere.roles.runner.agent_child import AgentTimeouts
from voicethere.roles.runner.verify import SandboxBundleVerifier

ON_BOTH_SANDBOXES = True

GOOD = b"""
import words
from voicethere.agent import agent_log, define_agent

agent_log("info", "imported")
define_agent(on_client_join=lambda ctx: None, error_hook=print, commands=[words.hello])
"""


@pytest.fixture
def verifier(sandbox, tmp_path) -> BundleVerifier:
    tmp_path.chmod(0o755)
    return SandboxBundleVerifier(sandbox, tmp_path / "scratch", timeouts=AgentTimeouts(start=20))


async def test_a_good_bundle_says_what_it_registers(verifier, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("agent.py", GOOD)
        archive.writestr("words.py", "hello = 'hello'")
    assert await verifier.verify(buffer.getvalue()) == BundleReport(
        hooks=["on_session_start", "error_hook"], commands=["hello"], log_lines=["info: imported"]
    )
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_bundle_that_is_none_is_a_report(verifier):
    report = await verifier.verify(b"\xff\xfe\x00")
    assert report.problem == "the bundle looks like UTF-16: save it as UTF-8"


async def test_a_bundle_that_cannot_be_imported_is_a_report_with_its_line_and_no_secret(verifier, tmp_path):
    report = await verifier.verify(
        b"print('about to fail')\nkey = 'Authorization: Bearer abcdefgh12345678'\nraise RuntimeError(key)\n"
    )
    assert report.problem == (
        "agent.py could not be imported: RuntimeError: Authorization: Bearer [redacted]"
    )
    assert report.stack is not None
    assert 'File "agent.py", line 3' in report.stack
    assert "abcdefgh" not in report.stack
    assert report.log_lines == ["info: about to fail"]
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_bundle_that_exits_on_import_is_a_report(verifier):
    report = await verifier.verify(b"import os\nos._exit(0)")
    assert report.problem == "the agent's process exited with status 0"


async def test_a_bundle_that_never_gets_ready_is_a_report(sandbox, tmp_path):
    tmp_path.chmod(0o755)
    verifier = SandboxBundleVerifier(sandbox, tmp_path, timeouts=AgentTimeouts(start=0.5))
    report = await verifier.verify(b"import time\ntime.sleep(60)")
    assert report.problem == "the agent did not finish loading and on_agent_start within 0.5 s"
