"""How to bring about the faults of the connection, of provisioning and of speech.

Nothing here knows what a fault must give.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import psutil

from voicethere.cli.ears import STEP_SECONDS, DidNotHappen
from voicethere.cli.faults.lab import Trial
from voicethere.cli.faults.signaling_proxy import SignalingProxy
from voicethere.client import Credentials, SpeechEventType

_CONNECT_SECONDS = 3.0
_PROVISION_SECONDS = 2.0


async def _started(trial: Trial) -> Credentials:
    credentials = await trial.start()
    if credentials is None:
        raise DidNotHappen("the session could not be started")
    return credentials


# ------------------------------------------------------------------ the connection


async def peer_vanishes(trial: Trial) -> None:
    """The client's process is killed, and nobody comes back."""
    credentials = await _started(trial)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "voicethere.cli.faults.lonely_client",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(credentials) + b"\n")
        async with asyncio.timeout(30):
            said = await process.stdout.readline()
    except TimeoutError:
        said = b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if said.strip() != b"connected":
        raise DidNotHappen("the client that was to vanish did not connect")


async def ice_never_connects(trial: Trial) -> None:
    """No address of either side reaches the other."""
    credentials = await _started(trial)
    async with SignalingProxy(credentials.signaling_url, without_candidates=True).running() as proxy:
        elsewhere = msgspec.structs.replace(credentials, signaling_url=proxy.url)
        async with trial.connected(elsewhere, connect_timeout=_CONNECT_SECONDS) as session:
            if session is not None:
                raise DidNotHappen("a connection without any address came about")


async def signaling_drops(trial: Trial) -> None:
    """The signaling socket breaks in the middle of a session."""
    credentials = await _started(trial)
    async with SignalingProxy(credentials.signaling_url).running() as proxy:
        elsewhere = msgspec.structs.replace(credentials, signaling_url=proxy.url)
        async with trial.connected(elsewhere) as session:
            if session is None:
                raise DidNotHappen("the client did not connect")
            await trial.ears.until("the agent's start", lambda: trial.ears.message("started"))
            trial.mark()
            proxy.cut()
            await trial.outcome(session)


async def bad_join_token(trial: Trial) -> None:
    """A token that nobody signed."""
    credentials = await _started(trial)
    forged = msgspec.structs.replace(credentials, join_token=credentials.join_token[:-8] + "forgedxx")
    trial.mark()
    async with trial.connected(forged, connect_timeout=_CONNECT_SECONDS) as session:
        if session is not None:
            raise DidNotHappen("a forged token was accepted")


# ------------------------------------------------------------------ provisioning


async def not_deployed(trial: Trial) -> None:
    """A project on which nothing is deployed."""
    operator = trial.lab.operator
    project = await operator.ask("POST", "/projects", json={"name": "nothing here"})
    key = await operator.ask(
        "POST", "/api-keys", json={"name": "page", "kind": "client", "project_id": project["id"]}
    )
    trial.deployed = msgspec.structs.replace(trial.deployed, project_id=project["id"], client_key=key["key"])
    trial.mark()
    await trial.start()


async def bad_key(trial: Trial) -> None:
    """A key that nobody issued."""
    trial.deployed = msgspec.structs.replace(trial.deployed, client_key="vthc_nobody_issued_this_key")
    trial.mark()
    await trial.start()


async def http_500(trial: Trial) -> None:
    """A session service that answers every request with a failure of its own."""
    async with _broken_service() as base_url:
        trial.mark()
        await trial.start(base_url=base_url)


async def provisioning_timeout(trial: Trial) -> None:
    """A runner that has stopped answering."""
    runner = psutil.Process(trial.lab.platform.runner_pid)
    runner.suspend()
    try:
        trial.mark()
        await trial.start(timeout=_PROVISION_SECONDS)
    finally:
        runner.resume()


@contextlib.asynccontextmanager
async def _broken_service() -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\n"
                b"content-length: 4\r\nconnection: close\r\n\r\nOops"
            )
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


# ------------------------------------------------------------------ speech


async def speech_synthesis_dies(trial: Trial) -> None:
    """The process that speaks is killed while a sentence is with it, and so is the one in its place."""
    async with trial.connected(await _started(trial)) as session:
        if session is None:
            raise DidNotHappen("the client did not connect")
        await trial.ears.until("the agent's start", lambda: trial.ears.message("started"))
        with _stopped(trial, "synthesizer_process"):
            session.send_chat("go")
            await trial.ears.until("the announcement", lambda: trial.ears.message("agent_speak"))
            trial.mark()
            await _killed_until(trial, "synthesizer_process", lambda: bool(_speech_error(trial)))
        await trial.outcome(session)


async def speech_recognition_dies(trial: Trial) -> None:
    """The process that recognizes is killed while an utterance is with it, and so is the one in its place."""
    async with trial.connected(await _started(trial)) as session:
        if session is None:
            raise DidNotHappen("the client did not connect")
        await trial.ears.until("the agent's start", lambda: trial.ears.message("started"))
        with _stopped(trial, "recognizer_process"):
            await trial.say("good morning")
            await trial.ears.until("the utterance", lambda: _event(trial, SpeechEventType.USER_SPEAKING_END))
            trial.mark()
            await _killed_until(trial, "recognizer_process", lambda: bool(_speech_error(trial)))
        await trial.outcome(session)


async def _killed_until(trial: Trial, name: str, enough: Callable[[], bool]) -> None:
    """Kill every process of that kind that the runner starts, until it gives up."""
    runner = psutil.Process(trial.lab.platform.runner_pid)
    try:
        async with asyncio.timeout(STEP_SECONDS):
            while not enough():
                for child in runner.children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if any(name in part for part in child.cmdline()):
                            child.kill()
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise DidNotHappen("the runner did not say that speech failed") from None


@contextlib.contextmanager
def _stopped(trial: Trial, name: str) -> Iterator[None]:
    """A speech process that is held still, so that what is asked of it is surely under way."""
    runner = psutil.Process(trial.lab.platform.runner_pid)
    for child in runner.children():
        if any(name in part for part in child.cmdline()):
            child.send_signal(signal.SIGSTOP)
            yield
            return
    raise DidNotHappen(f"the runner has no {name}")


def _event(trial: Trial, kind: SpeechEventType) -> bool | None:
    return any(event.event is kind for event in trial.ears.speech) or None


def _speech_error(trial: Trial) -> bool | None:
    return _event(trial, SpeechEventType.ERROR)
