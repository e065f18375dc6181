"""speak() with an async iterable, in a real child: what the runner gets, in which order, and how it ends."""

from __future__ import annotations

import pytest

from voicethere.roles.runner.agent_events import AgentError
from voicethere.wire import ipc

STREAMS = """
    import asyncio
    from voicethere.agent import *

    gates = {{}}

    def gate(name):
        return gates.setdefault(name, asyncio.Event())

    async def parts(*parts, hold=None):
        try:
            for part in parts:
                yield part
            if hold:
                await gate(hold).wait()
                yield "released"
        finally:
            agent_log("info", f"closed {{parts[0]}}")

    class Reader:
        closed = False
        def __aiter__(self):
            return self
        async def __anext__(self):
            raise AssertionError("read")
        async def aclose(self):
            agent_log("info", "closed the reader")

    agent = Agent()

    @agent.on_data_channel_message
    async def message(ctx):
        s = ctx.session_id
        match ctx.message:
            case {{"open": name}}:
                gate(name).set()
            case {{"say": text}}:
                speak(s, text)
            case _:
                await run(ctx, s)

    async def run(ctx, s):
{run}

    @agent.error_hook
    async def failed(ctx):
        agent_log("error", f"{{ctx.session_id}} {{ctx.hook}}: {{ctx.error!r}}")
"""


RAISING = """
async def raising():
    yield "One is here. "
    yield "Two"
    raise RuntimeError("no more")
"""


def source(run: str) -> str:
    return STREAMS.format(run="\n".join(f"        {line}" for line in run.strip().splitlines()))


async def streaming(start_agent, run: str):
    agent = await start_agent(source(run))
    await agent.start_session()
    return agent


def speech(agent) -> list[str]:
    """What was said, in order: `(1`, pieces of text merged, `1)` or `1!` where it is not complete; a text."""
    told: list[str] = []
    for event in agent.events:
        match event:
            case ipc.Speak(text=text):
                told.append(text)
            case ipc.SpeakStart(speech_id=number):
                told += [f"({number}", ""]
            case ipc.SpeakText(text=text):
                told[-1] += text
            case ipc.SpeakEnd(speech_id=number, complete=complete):
                told.append(f"{number})" if complete else f"{number}!")
    return told


def ends(agent) -> list[str]:
    """What ended in which order: streams as in `speech`, texts, and the agent's call."""
    told: list[str] = []
    for event in agent.events:
        match event:
            case ipc.Speak(text=text):
                told.append(text)
            case ipc.SpeakEnd(speech_id=number, complete=complete):
                told.append(f"{number})" if complete else f"{number}!")
            case ipc.DisconnectClient(more=more):
                told.append("hangs up later" if more else "hangs up")
    return told


async def piece(agent, text: str) -> ipc.SpeakText:
    return await agent.event(ipc.SpeakText, lambda message: text in message.text)


async def end(agent, nth: int = 1) -> ipc.SpeakEnd:
    return await agent.event(ipc.SpeakEnd, nth=nth)


def done(agent, number: int, *, interrupted: bool) -> None:
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=number, interrupted=interrupted))


async def test_parts_are_passed_on_as_they_come(start_agent):
    agent = await streaming(
        start_agent,
        """
speech = speak(s, parts("One ", "two", "", " three", hold="go"))
assert speech.outcome is None
outcome = await speech
send_to_client(s, {"text": speech.text, "outcome": outcome})
""",
    )
    agent.data("1")
    await piece(agent, "three")
    assert agent.of(ipc.SpeakEnd) == []
    agent.data(
        '{"open": "go"}'
    )  # it is handled after `run`, which waits: a session has one handler at a time
    assert agent.sent() == []
    await agent.child.stop(0)
    assert speech(agent)[:2] == ["(1", "One two three"]


async def test_the_outcome_is_that_of_the_whole_stream(start_agent):
    agent = await streaming(
        start_agent,
        """
speech = speak(s, parts("One ", "two"))
outcome = await speech
send_to_client(s, {"text": speech.text, "outcome": outcome})
""",
    )
    agent.data("1")
    assert (await end(agent)).complete
    assert speech(agent) == ["(1", "One two", "1)"]
    await agent.log("closed One")
    assert agent.sent() == []
    done(agent, 1, interrupted=False)
    assert (await agent.event(ipc.SendToClient)).payload == '{"text":"One two","outcome":"played"}'


async def test_what_is_said_behind_a_stream_waits_for_it_also_from_threads(start_agent):
    agent = await streaming(
        start_agent,
        """
speak(s, "before")
speak(s, parts("A", hold="go"))
speak(s, "after")
await asyncio.to_thread(lambda: [speak(s, parts("B")), speak(s, "from a thread")])
speak(s, parts("C"))
agent_log("info", "called")
""",
    )
    agent.data("1")
    await agent.log("called")
    await piece(agent, "A")
    assert speech(agent) == ["before", "(2", "A"]
    agent.data('{"open": "go"}')
    await end(agent, 3)
    assert speech(agent) == [
        "before", "(2", "Areleased", "2)", "after", "(4", "B", "4)", "from a thread", "(6", "C", "6)",
    ]  # fmt: skip


async def test_a_plain_hook_may_stream_too_and_does_not_wait_for_it(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import *
        import asyncio, threading

        async def where():
            yield f"{threading.current_thread() is threading.main_thread()} "
            yield f"{asyncio.get_running_loop().is_running()}"

        def final(ctx):
            speak(ctx.session_id, where())
            send_to_client(ctx.session_id, threading.current_thread() is threading.main_thread())

        define_agent(on_user_speech_final=final)
        """
    )
    await agent.start_session()
    agent.hear("hello")
    assert (await end(agent)).complete
    assert speech(agent) == ["(1", "True True", "1)"]
    assert (await agent.event(ipc.SendToClient)).payload == "false"


async def test_a_stream_that_hangs_keeps_no_other_handler_waiting_and_is_closed_at_the_end(start_agent):
    agent = await streaming(
        start_agent,
        """
speech = speak(s, parts("A", hold="never"))
later = speak(s, Reader())
async def tell():
    agent_log("info", f"outcomes {await speech} {await later}")
asyncio.create_task(tell())
agent_log("info", f"handled {ctx.message}")
""",
    )
    agent.data("1")
    await piece(agent, "A")
    agent.data("2")
    await agent.log("handled 2")
    await agent.end_session()
    assert speech(agent) == ["(1", "A", "1!"]
    assert {"closed A", "closed the reader"} <= set(agent.lines())
    await agent.log("outcomes interrupted interrupted")
    assert agent.of(AgentError) == []


async def test_an_interruption_closes_the_iterable_and_drops_what_waits_behind_it(start_agent):
    agent = await streaming(
        start_agent,
        """
speeches = [speak(s, parts("A", hold="never")), speak(s, "behind"), speak(s, Reader())]
send_to_client(s, [await speech for speech in speeches])
speak(s, parts("next"))
""",
    )
    agent.data("1")
    await piece(agent, "A")
    done(agent, 1, interrupted=True)
    assert (await agent.event(ipc.SendToClient)).payload == '["interrupted","interrupted","interrupted"]'
    await end(agent, 2)
    assert speech(agent) == ["(1", "A", "1!", "(4", "next", "4)"]
    for line in ("closed A", "closed the reader", "closed next"):
        await agent.log(line)
    await agent.end_session()
    assert agent.of(AgentError) == []


async def test_a_stream_and_what_waits_behind_it_are_said_before_the_agent_hangs_up(start_agent):
    agent = await streaming(
        start_agent,
        """
speak(s, parts("A", hold="go"))
speak(s, "Goodbye.")
disconnect_client(s, "done")
await asyncio.to_thread(disconnect_client, s, "again")
gate("go").set()
""",
    )
    agent.data("1")
    await agent.event(ipc.DisconnectClient, lambda message: not message.more)
    assert ends(agent) == ["hangs up later", "hangs up later", "1)", "Goodbye.", "hangs up"]
    assert speech(agent) == ["(1", "Areleased", "1)", "Goodbye."]
    assert [message.reason for message in agent.of(ipc.DisconnectClient)] == ["done", "again", "done"]


@pytest.mark.parametrize("how", ["interrupted", "raises"])
async def test_an_agent_that_hangs_up_does_so_too_where_its_last_words_are_not_said(start_agent, how):
    agent = await streaming(
        start_agent,
        RAISING
        + f"""
speak(s, {"raising()" if how == "raises" else 'parts("A", hold="never")'})
speak(s, "Goodbye.")
disconnect_client(s)
""",
    )
    agent.data("1")
    if how == "interrupted":
        await piece(agent, "A")
        done(agent, 1, interrupted=True)
    await agent.event(ipc.DisconnectClient, lambda message: not message.more)
    said = ["1!", "Goodbye."] if how == "raises" else ["1!"]
    assert ends(agent) == ["hangs up later", *said, "hangs up"]


async def test_one_that_will_not_be_cancelled_says_nothing_more_and_holds_nobody_up(start_agent):
    agent = await streaming(
        start_agent,
        """
async def stubborn():
    while True:
        try:
            yield "again "
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            agent_log("info", "not me")
speak(s, stubborn())
""",
    )
    agent.data("1")
    await piece(agent, "again ")
    done(agent, 1, interrupted=True)
    agent.data('{"say": "hello"}')
    await agent.said("hello")
    await agent.end_session()
    assert speech(agent) == ["(1", "again ", "1!", "hello"]
    assert "not me" in agent.lines()
    assert agent.of(AgentError) == []


async def test_one_that_cannot_be_stopped_is_left_with_a_line_in_the_log(start_agent):
    agent = await streaming(
        start_agent,
        """
async def deaf():
    yield "deaf"
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            agent_log("info", "did not hear")
speak(s, deaf())
""",
    )
    agent.data("1")
    await piece(agent, "deaf")
    await agent.end_session()
    assert "did not hear" in agent.lines()
    assert (
        "1 streams given to speak() go on, though they were cancelled as the session ended" in agent.lines()
    )


async def test_a_stream_that_raises_half_way_is_a_handler_failure(start_agent):
    agent = await streaming(
        start_agent,
        RAISING
        + """
outcome = await speak(s, raising())
agent_log("info", f"outcome {outcome}")
""",
    )
    await agent.start_session("s2")
    agent.data("1")
    failure = await agent.failure()
    assert (failure.session_id, failure.hook, failure.message) == ("s1", "speak", "RuntimeError: no more")
    assert failure.stack.splitlines()[1:] == [
        f'  File "agent.py", line {failure.stack.split("line ")[1].split(",")[0]}, in raising',
        '    raise RuntimeError("no more")',
        "RuntimeError: no more",
    ]
    assert speech(agent) == ["(1", "One is here. Two", "1!"]
    assert "s1 speak: RuntimeError('no more')" in agent.lines()
    await agent.log("outcome interrupted")
    agent.data('{"say": "not handled any more"}')
    agent.data('{"say": "others go on"}', "s2")
    await agent.said("others go on")
    await agent.end_session()
    assert len(agent.of(AgentError)) == 1
    kinds = [type(event).__name__ for event in agent.events]
    assert kinds.index("SpeakEnd") < kinds.index("AgentError")


@pytest.mark.parametrize(
    ("stream", "message", "in_stack"),
    [
        ('parts("a", None)', "TypeError: speak() takes a str as part 2 of a stream, not NoneType", "yield"),
        ('parts("x" * 16385)', "ValueError: speak() takes at most 16384 characters as part 1", "yield"),
        ('parts("\\udc80")', "ValueError: speak() was given a part 1 of a stream that is no", "yield"),
        (
            'parts(*["x" * 16384] * 17)',
            "ValueError: speak() takes at most 262144 characters of one stream, with part 17 these",
            "yield part",
        ),
        ("Reader()", "AssertionError: read", "__anext__"),
        ("type('No', (), {'__aiter__': lambda self: 3})()", "TypeError: ", "agent.py"),
    ],
)  # fmt: skip
async def test_a_stream_of_what_cannot_be_spoken_fails_with_the_agents_own_line(
    start_agent, stream, message, in_stack
):
    agent = await streaming(start_agent, f"speak(s, {stream})")
    agent.data("1")
    failure = await agent.failure()
    assert failure.message.startswith(message)
    assert failure.hook == "speak"
    assert in_stack in failure.stack or in_stack == "agent.py"
    assert not (await end(agent)).complete
    await agent.end_session()
    assert len(agent.of(AgentError)) == 1


async def test_an_iterable_that_raises_as_it_is_closed_is_a_failure_too(start_agent):
    agent = await streaming(
        start_agent,
        """
async def unclosable():
    try:
        yield "A"
        await gate("never").wait()
    finally:
        raise OSError("cannot be closed")
speak(s, unclosable())
""",
    )
    agent.data("1")
    await piece(agent, "A")
    done(agent, 1, interrupted=True)
    assert (await agent.failure()).message == "OSError: cannot be closed"


async def test_a_stream_fails_the_session_in_which_it_was_started_while_that_is_there(start_agent):
    agent = await streaming(start_agent, RAISING + 'speak("s2", raising())')
    await agent.start_session("s2")
    agent.data("1")
    assert (await agent.failure()).session_id == "s1"
    assert agent.of(ipc.SpeakStart)[0].session_id == "s2"


async def test_a_stream_into_a_session_that_is_over_is_closed_unread(start_agent):
    agent = await streaming(start_agent, 'send_to_client(s, await speak("s2", Reader()))')
    await agent.start_session("s2")
    await agent.end_session("s2")
    agent.data("1")
    assert (await agent.event(ipc.SendToClient)).payload == '"interrupted"'
    await agent.log("closed the reader")
    await agent.log("speak() did nothing: session 's2' has ended")
    assert agent.of(ipc.SpeakStart) == []


async def test_too_many_that_wait_behind_a_stream_are_interrupted_at_once(start_agent):
    agent = await streaming(
        start_agent,
        """
speak(s, parts("A", hold="never"))
waiting = [speak(s, f"text {n}") for n in range(256)]
refused = [speak(s, "one too many"), speak(s, Reader())]
send_to_client(s, [sum(speech.outcome is None for speech in waiting), *[await speech for speech in refused]])
""",
    )
    agent.data("1")
    assert (await agent.event(ipc.SendToClient)).payload == '[256,"interrupted","interrupted"]'
    await agent.log("closed the reader")


async def test_parts_that_come_in_a_rush_leave_together_and_the_loop_stays_free(start_agent):
    agent = await streaming(
        start_agent,
        """
async def rush():
    for n in range(50_000):
        yield "word "
speak(s, rush())
""",
    )
    agent.data("1")
    assert (await end(agent)).complete
    assert speech(agent)[1] == "word " * 50_000
    assert len(agent.of(ipc.SpeakText)) < 1000
    assert all(len(message.text) <= ipc.MAX_SPEAK_CHARS for message in agent.of(ipc.SpeakText))


async def test_an_agent_that_exits_in_its_stream_is_gone_with_its_status(start_agent):
    agent = await streaming(
        start_agent,
        """
async def leaving():
    yield "A"
    raise SystemExit(3)
speak(s, leaving())
""",
    )
    agent.data("1")
    crash = (await agent.gone()).crash
    assert crash is not None
    assert crash.exit_status == 3
