"""`agent verify` and `build validate`: loads a bundle in this machine's sandbox, as a session would.

Where the offline recognizer is installed, it says which of the agent's commands it does not know.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click
import msgspec

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.speech.pocketsphinx_recognizer import PocketsphinxRecognizer
from voicethere.adapters.speech.providers import speech_providers
from voicethere.cli.failure import Failure
from voicethere.cli.options import read_bundle_file
from voicethere.cli.terminal import json_document, note, record, safe_lines
from voicethere.core.bundle import InvalidBundle, read_bundle
from voicethere.core.ports import BundleReport, SandboxUnavailable
from voicethere.roles.runner.verify import SandboxBundleVerifier


def check_bundle(path: Path, *, as_json: bool) -> None:
    """Print what the bundle registers.

    Raises:
        Failure: it cannot be read, is no bundle, or does not load; the words say why.
    """
    content = read_bundle_file(path)
    try:
        read_bundle(content, filename=path.name)
        report = asyncio.run(_verify(content))
    except InvalidBundle as error:
        report = BundleReport(problem=str(error))
    except SandboxUnavailable as error:
        raise Failure(f"the sandbox cannot run here: {error}") from error
    if as_json:
        json_document({"file": str(path), "ok": report.problem is None, **msgspec.to_builtins(report)})
    if report.problem is not None:
        if not as_json:
            _show_what_it_left(report)
        raise Failure(f"{path.name} does not load: {report.problem}")
    if not as_json:
        record(
            (
                ("file", str(path)),
                ("hooks", ", ".join(report.hooks) or "none"),
                ("commands", ", ".join(report.commands) or "none"),
            )
        )
        for remark in report.remarks:
            note(f"Remark: {remark}.")
        note("It loads.")


def _show_what_it_left(report: BundleReport) -> None:
    for text in (*report.log_lines, *((report.stack,) if report.stack else ())):
        click.echo(safe_lines(text.rstrip("\n")), err=True)


async def _verify(content: bytes) -> BundleReport:
    # A short path: the sandbox puts sockets below it, and those have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="vth-") as scratch:
        root = Path(scratch)
        (root / "children").mkdir()
        (root / "bundles").mkdir()
        sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=root / "children")
        recognizer = PocketsphinxRecognizer() if _recognizer_installed() else None
        verifier = SandboxBundleVerifier(sandbox, root / "bundles", recognizer=recognizer)
        try:
            return await verifier.verify(content)
        finally:
            await sandbox.aclose()
            if recognizer is not None:
                await recognizer.aclose()


def _recognizer_installed() -> bool:
    return any(provider.name == "pocketsphinx" and provider.available for provider in speech_providers())
