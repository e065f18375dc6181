"""When a session counts as idle, and how it ends then: hours of it, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.runner.hosted_call import HostedCall
from voicethere.testing.virtual_time import in_virtual_time
from voicethere.wire import ipc
from voicethere.wire.session_api import Mode
from voicethere.wire.settings import SessionSettings

LIMITS = SessionSettings(idle_timeout_seconds=40, data_only_idle_timeout_seconds=70)
IDLE_END = [("SESSION_IDLE_TIMEOUT", False)]


def now() -> float:
    return asyncio.get_running_loop().time()


async def ends_after(call: HostedCall, since: float) -> float:
    """Seconds from `since` until the client was told."""
    return await call.moment("session_close") - since


@pytest.mark.parametrize(("mode", "limit"), [(Mode.VOICE, 40), (Mode.VOICE_DATA, 40), (Mode.DATA, 70)])
@in_virtual_time
async def test_nothing_happens_for_the_limit_of_the_mode(mode: Mode, limit: int) -> None:
    async with HostedCall(mode, settings=LIMITS) as call:
        assert await ends_after(call, now()) == pytest.approx(limit, abs=0.5)
        assert call.errors() == IDLE_END
        kinds = [message["type"] for _, message in call.client.sent]
        assert kinds.index("session_error") < kinds.index("session_close")
        (close,) = call.told("session_close")
        assert close == {"type": "session_close", "code": "idle_timeout", "reason": "idle_timeout"}
        await call.host.over.wait()
        assert await call.stored() == (IDLE_END, "idle_timeout")
        assert call.child.of(ipc.SessionEnd)


@pytest.mark.parametrize("mode", list(Mode))
@in_virtual_time
async def test_turned_off_it_never_ends(mode: Mode) -> None:
    async with HostedCall(mode, settings=SessionSettings(idle_timeout_enabled=False)) as call:
        await asyncio.sleep(900)
        assert call.told("session_close") == []


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("message", [{"type": "keepalive"}, {"type": "chat", "text": "hi"}, {"x": 1}])
@in_virtual_time
async def test_messages_of_the_client_count_where_the_setting_is_on(
    mode: Mode, counts: bool, message: dict[str, object]
) -> None:
    settings = SessionSettings(idle_timeout_dc_inbound=counts)
    async with HostedCall(mode, settings=settings) as call:
        began = now()
        for _ in range(4):
            await asyncio.sleep(20)
            call.send(message)
        assert await ends_after(call, began) == pytest.approx(110 if counts else 30, abs=0.5)


@pytest.mark.parametrize("counts", [True, False])
@in_virtual_time
async def test_the_users_speech_counts_where_the_setting_is_on(counts: bool) -> None:
    settings = SessionSettings(idle_timeout_voice_activity=counts)
    async with HostedCall(settings=settings) as call:
        began = now()
        await asyncio.sleep(20)
        await call.talk(1.0)
        assert await ends_after(call, began) == pytest.approx(51.5 if counts else 30, abs=0.6)


@pytest.mark.parametrize("counts", [True, False])
@in_virtual_time
async def test_nobody_is_idle_while_the_agent_still_talks(counts: bool) -> None:
    settings = SessionSettings(idle_timeout_voice_activity=counts)
    async with HostedCall(settings=settings, seconds_per_character=10) as call:
        began = now()
        call.child.speak("a story")  # 70 seconds
        assert await ends_after(call, began) == pytest.approx(100 if counts else 30, abs=1)


@in_virtual_time
async def test_nobody_is_idle_in_the_middle_of_a_sentence() -> None:
    async with HostedCall() as call:
        began = now()
        await call.talk(80, pause=1)  # cut into utterances of 15 seconds
        assert await ends_after(call, began) == pytest.approx(110.5, abs=1)


@in_virtual_time
async def test_a_user_who_is_lost_in_the_middle_of_a_sentence_does_not_stop_the_clock() -> None:
    async with HostedCall() as call:
        await call.talk(2, pause=0)
        lost = now()
        call.client.events.lost()
        await asyncio.sleep(10)
        await call.connect()
        back = now()
        assert back - lost < 11
        assert await ends_after(call, back) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("counts", [True, False])
@in_virtual_time
async def test_without_audio_the_agents_words_are_its_speech(counts: bool) -> None:
    settings = SessionSettings(idle_timeout_voice_activity=counts)
    async with HostedCall(Mode.DATA, settings=settings) as call:
        began = now()
        await asyncio.sleep(20)
        call.child.speak("are you there?")
        assert await ends_after(call, began) == pytest.approx(50 if counts else 30, abs=0.5)


class TestTheHook:
    HOOK = ("on_idle_timeout",)

    @pytest.mark.parametrize("mode", [Mode.VOICE, Mode.DATA])
    @in_virtual_time
    async def test_it_is_given_its_time_and_then_the_session_ends(self, mode: Mode) -> None:
        async with HostedCall(mode, hooks=self.HOOK) as call:
            began = now()
            await asyncio.sleep(35)
            assert call.child.of(ipc.IdleTimeout) == [
                ipc.IdleTimeout(session_id="s", idle_timeout_seconds=30, grace_seconds=30.0)
            ]
            assert call.errors() == []
            await asyncio.sleep(20)
            call.child.say(ipc.IdleTimeoutDone(session_id="s"))
            assert await ends_after(call, began) == pytest.approx(55, abs=0.5)
            assert call.errors() == IDLE_END

    @in_virtual_time
    async def test_one_that_raises(self) -> None:
        async with HostedCall(Mode.DATA, hooks=self.HOOK) as call:
            await asyncio.sleep(31)
            call.child.say(ipc.IdleTimeoutDone(session_id="s", error="ValueError: no", stack="…"))
            await call.host.over.wait()
            expected = [("IDLE_TIMEOUT_CALLBACK_FAILED", True), *IDLE_END]
            assert call.errors() == expected
            assert await call.stored() == (expected, "idle_timeout")

    @in_virtual_time
    async def test_one_that_is_not_done_within_its_grace(self) -> None:
        async with HostedCall(Mode.DATA, hooks=self.HOOK) as call:
            began = now()
            assert await ends_after(call, began) == pytest.approx(60, abs=0.5)
            expected = [("IDLE_TIMEOUT_CALLBACK_TIMED_OUT", True), *IDLE_END]
            assert call.errors() == expected
            await call.host.over.wait()
            assert await call.stored() == (expected, "idle_timeout")

    @in_virtual_time
    async def test_it_can_say_good_bye_and_wait_for_it(self) -> None:
        async with HostedCall(hooks=self.HOOK) as call:
            await asyncio.sleep(31)
            number = call.child.speak("good bye")
            await call.moment("agent_speak")
            await asyncio.sleep(2)
            assert call.child.of(ipc.SpeechDone) == [
                ipc.SpeechDone(session_id="s", speech_id=number, interrupted=False)
            ]
            assert call.told("session_close") == []
            call.child.say(ipc.IdleTimeoutDone(session_id="s"))
            await call.moment("session_close")

    @in_virtual_time
    async def test_an_agent_that_dies_in_it_is_what_ended_the_session(self) -> None:
        async with HostedCall(Mode.DATA, hooks=self.HOOK) as call:
            await asyncio.sleep(31)
            call.child.die()
            await call.host.over.wait()
            assert call.errors() == [("AGENT_CHILD_CRASHED", False)]
