"""An agent's code that raises, in a real child: what the runner is told, and that it is told at all."""

from __future__ import annotations

import pytest

from voicethere.errors.causes import CrashKind
from voicethere.roles.runner.agent_child import AgentTimeouts
from voicethere.roles.runner.agent_events import AgentError
from voicethere.wire import ipc


async def test_a_handler_that_raises_is_told_after_error_hook_with_the_agents_own_line(start_agent):
    agent = await start_agent(
        """
        from helper import explode
        from voicethere.agent import agent_log, define_agent

        async def final(ctx):
            explode(ctx.text)

        async def on_error(ctx):
            agent_log("error", f"{ctx.hook} {ctx.error!r} {ctx.customer_context}")

        define_agent(on_user_speech_final=final, error_hook=on_error)
        """,
        files={
            "helper.py": """
            def explode(text):
                raise RuntimeError(f"demo failure: {text}")
            """
        },
    )
    await agent.start_session(customer_context={"user": "ada"})
    agent.hear("please crash now")
    failure = await agent.failure()
    assert failure.session_id == "s1"
    assert failure.hook == "on_user_speech_final"
    assert failure.message == "RuntimeError: demo failure: please crash now"
    assert failure.stack.splitlines() == [
        "Traceback (most recent call last):",
        '  File "agent.py", line 6, in final',
        "    explode(ctx.text)",
        '  File "helper.py", line 3, in explode',
        '    raise RuntimeError(f"demo failure: {text}")',
        "RuntimeError: demo failure: please crash now",
    ]
    logged = "on_user_speech_final RuntimeError('demo failure: please crash now') {'user': 'ada'}"
    assert agent.lines() == [logged]
    assert failure.last_log_lines == (f"error: {logged}",)


async def test_a_plain_hook_that_raises_is_told_in_the_same_way(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import define_agent, send_to_client

        def message(ctx):
            send_to_client(ctx.session_id, {"a": [1, object()]})

        define_agent(on_data_channel_message=message)
        """
    )
    await agent.start_session()
    agent.data("go")
    failure = await agent.failure()
    assert failure.message.startswith("TypeError: send_to_client(): payload['a'][1] is an object, which JSON")
    assert failure.stack.splitlines()[1:3] == [
        '  File "agent.py", line 5, in message',
        '    send_to_client(ctx.session_id, {"a": [1, object()]})',
    ]
    assert "voicethere/agent" not in failure.stack


async def test_after_a_failure_nothing_of_the_session_is_handled_but_its_end(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import define_agent, speak

        def message(ctx):
            speak(ctx.session_id, f"{ctx.session_id} {ctx.message}")
            if ctx.message == 1:
                raise ValueError("one")

        define_agent(on_data_channel_message=message,
                     on_session_end=lambda ctx: speak("s2", f"end of {ctx.session_id}"))
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("1")
    agent.data("2")
    agent.data("3", "s2")
    await agent.end_session("s1")
    await agent.said("s2 3")
    assert sorted(agent.spoken()) == ["end of s1", "s1 1", "s2 3"]
    assert [failure.session_id for failure in agent.of(AgentError)] == ["s1"]


async def test_on_session_start_that_raises_is_not_acknowledged(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import define_agent
        define_agent(on_session_start=lambda ctx: 1 / 0)
        """
    )
    agent.begin_session()
    assert (await agent.failure()).message == "ZeroDivisionError: division by zero"
    await agent.end_session()
    assert agent.of(ipc.SessionStartAck) == []


@pytest.mark.parametrize(
    ("error_hook", "limit", "logged"),
    [
        # It must not look as if it overran, however long a thread takes to start.
        ("def on_error(ctx): raise KeyError('second')", 20, "error_hook raised KeyError: 'second'"),
        ("async def on_error(ctx): await asyncio.sleep(60)", 0.2, "error_hook took longer than its 0.2 s"),
        ("def on_error(ctx): time.sleep(60)", 0.2, "error_hook took longer than its 0.2 s"),
    ],
)
async def test_an_error_hook_that_fails_or_overruns_is_only_logged(start_agent, error_hook, limit, logged):
    agent = await start_agent(
        f"""
        import asyncio, time
        from voicethere.agent import define_agent
        {error_hook}
        def message(ctx): raise RuntimeError("first")
        define_agent(on_data_channel_message=message, error_hook=on_error)
        """,
        timeouts=AgentTimeouts(start=30, ping_timeout=30, error_hook=limit),
    )
    await agent.start_session()
    agent.data("go")
    assert (await agent.failure()).message == "RuntimeError: first"
    assert (await agent.log(logged)).session_id == "s1"
    await agent.end_session()


async def test_an_idle_hook_that_raises_is_told_with_its_answer(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import agent_log, define_agent
        def idle(ctx): raise RuntimeError(f"idle for {ctx.idle_timeout_seconds}")
        define_agent(on_idle_timeout=idle, error_hook=lambda ctx: agent_log("info", f"saw {ctx.hook}"))
        """
    )
    await agent.start_session()
    agent.child.send(ipc.IdleTimeout(session_id="s1", idle_timeout_seconds=60, grace_seconds=30))
    done = await agent.event(ipc.IdleTimeoutDone)
    assert done.error == "RuntimeError: idle for 60"
    assert '  File "agent.py", line 3, in idle' in (done.stack or "")
    await agent.log("saw on_idle_timeout")
    assert agent.of(AgentError) == []


async def test_an_idle_hook_past_its_grace_is_given_up_and_the_session_goes_on(start_agent):
    agent = await start_agent(
        """
        import asyncio
        from voicethere.agent import define_agent, speak
        async def idle(ctx): await asyncio.sleep(60)
        define_agent(on_idle_timeout=idle, on_data_channel_message=lambda ctx: speak(ctx.session_id, "hi"))
        """
    )
    await agent.start_session()
    agent.child.send(ipc.IdleTimeout(session_id="s1", idle_timeout_seconds=60, grace_seconds=0.1))
    agent.data("go")
    await agent.said("hi")
    assert agent.of(ipc.IdleTimeoutDone) == []


async def test_a_child_without_an_idle_hook_answers_at_once(start_agent):
    agent = await start_agent(
        "from voicethere.agent import define_agent\ndefine_agent(on_session_start=lambda ctx: None)"
    )
    await agent.start_session()
    agent.child.send(ipc.IdleTimeout(session_id="s1", idle_timeout_seconds=60, grace_seconds=30))
    assert await agent.event(ipc.IdleTimeoutDone) == ipc.IdleTimeoutDone(session_id="s1")


async def test_causes_and_groups_are_in_the_stack_and_our_frames_are_not(start_agent):
    agent = await start_agent(
        """
        import asyncio
        from voicethere.agent import define_agent

        async def boom():
            raise ValueError("inner")

        async def message(ctx):
            async with asyncio.TaskGroup() as group:
                group.create_task(boom())

        async def binary(ctx):
            try:
                await boom()
            except ValueError as error:
                raise LookupError("outer") from error

        define_agent(on_data_channel_message=message, on_data_channel_binary=binary)
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("go")
    group = await agent.failure()
    assert group.message.endswith("(1 sub-exception): ValueError: inner")
    assert 'File "agent.py", line 6, in boom' in group.stack
    agent.child.send(ipc.DataChannelBinary(session_id="s2", data=b"", channel="sync"))
    chained = await agent.failure(2)
    assert chained.message == "LookupError: outer"
    assert "direct cause" in chained.stack
    assert "ValueError: inner" in chained.stack
    assert "voicethere/agent" not in group.stack + chained.stack


# ------------------------------------------------------------------ background work

BACKGROUND = """
    import asyncio, threading
    from voicethere.agent import agent_log, define_agent, speak

    kept = []

    async def boom(seconds=0.0):
        await asyncio.sleep(seconds)
        raise RuntimeError("in the background")

    async def caught(awaitable):
        try:
            await awaitable
        except RuntimeError:
            return

    {hooks}
"""


@pytest.mark.parametrize(
    "work",
    [
        "asyncio.create_task(boom())",
        "kept.append(asyncio.create_task(boom()))",
        "asyncio.get_running_loop().call_soon(lambda: [][0])",
        "asyncio.get_running_loop().call_later(0.05, lambda: [][0])",
    ],
)
async def test_background_work_that_nobody_awaits_fails_its_session(start_agent, work):
    agent = await start_agent(
        BACKGROUND.format(
            hooks=f"""
    async def message(ctx):
        {work}

    define_agent(on_data_channel_message=message, error_hook=lambda ctx: speak("s2", ctx.hook))
    """
        )
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("go")
    failure = await agent.failure()
    assert failure.session_id == "s1"
    assert failure.hook in ("background_task", "callback")
    assert 'File "agent.py", line' in failure.stack
    assert agent.spoken() == [failure.hook]
    agent.data("not handled any more")
    await agent.end_session("s1")
    assert len(agent.of(AgentError)) == 1


async def test_a_thread_that_raises_fails_every_session(start_agent):
    agent = await start_agent(
        BACKGROUND.format(
            hooks="""
    def explode():
        raise RuntimeError("in a thread")

    define_agent(on_data_channel_message=lambda ctx: threading.Thread(target=explode).start(),
                 error_hook=lambda ctx: agent_log("info", f"error_hook for {ctx.session_id}"))
    """
        )
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("go")
    failure = await agent.failure()
    assert (failure.session_id, failure.hook) == (None, "background_thread")
    assert failure.message == "RuntimeError: in a thread"
    assert 'File "agent.py", line 19, in explode' in failure.stack
    assert sorted(agent.lines()) == ["error_hook for s1", "error_hook for s2"]


async def test_a_task_of_on_agent_start_that_raises_fails_every_session(start_agent):
    agent = await start_agent(
        BACKGROUND.format(
            hooks="""
    async def begin(ctx):
        asyncio.create_task(boom(0.05))

    define_agent(on_agent_start=begin)
    """
        )
    )
    assert (await agent.failure()).session_id is None


async def test_a_task_whose_failure_somebody_looks_at_is_none_of_ours(start_agent):
    agent = await start_agent(
        BACKGROUND.format(
            hooks="""
    async def message(ctx):
        now = asyncio.create_task(boom())
        await caught(now)
        later = asyncio.create_task(boom())
        await asyncio.sleep(1.3)  # longer than the grace: a hook that runs may still come to it
        await caught(later)
        await asyncio.gather(boom(), boom(0.01), return_exceptions=True)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(boom())
                group.create_task(boom(0.01))
        except* RuntimeError:
            pass
        done, _ = await asyncio.wait({asyncio.create_task(boom())})
        for task in done:
            task.exception()
        kept.append(asyncio.create_task(boom()))
        await asyncio.sleep(0)
        speak(ctx.session_id, "all caught but one")

    async def binary(ctx):
        await caught(kept.pop())  # of the message before: within the grace
        speak(ctx.session_id, "all caught")

    define_agent(on_data_channel_message=message, on_data_channel_binary=binary)
    """
        )
    )
    await agent.start_session()
    agent.data("go")
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=b"", channel="sync"))
    await agent.said("all caught")
    await agent.end_session()
    assert agent.of(AgentError) == []


async def test_a_failed_task_that_is_kept_is_told_before_its_session_is_over(start_agent):
    agent = await start_agent(
        BACKGROUND.format(
            hooks="""
    async def message(ctx):
        kept.append(asyncio.create_task(boom()))
        await asyncio.sleep(0.01)

    define_agent(on_data_channel_message=message)
    """
        )
    )
    await agent.start_session()
    agent.data("go")
    await agent.end_session()
    assert [type(event).__name__ for event in agent.events[-2:]] == ["AgentError", "SessionEndAck"]


# ------------------------------------------------------------------ loading


@pytest.mark.parametrize(
    ("source", "message", "in_stack"),
    [
        ("import nowhere_to_be_found", "agent.py could not be imported: ModuleNotFoundError", "line 1"),
        ("\n\ndef broken(:\n", "agent.py could not be imported: SyntaxError", 'File "agent.py", line 3'),
        ("import sys\nsys.exit(3)", "agent.py could not be imported: SystemExit: 3", "line 2"),
        ("raise KeyboardInterrupt", "agent.py could not be imported: KeyboardInterrupt", "line 1"),
        ("x = 1", "AgentDefinitionError: agent.py defines no agent: call define_agent(", ""),
        (
            "from voicethere.agent import Agent\nAgent()",
            "AgentDefinitionError: the Agent of this bundle has",
            "",
        ),
        (
            "from voicethere.agent import define_agent\n\ndefine_agent(on_user_speach_final=print)",
            "AgentDefinitionError: define_agent() knows no hook 'on_user_speach_final'; did you mean "
            "'on_user_speech_final'?",
            'File "agent.py", line 3',
        ),
        (
            "from voicethere.agent import define_agent\n"
            "def start(ctx):\n    raise OSError('no model')\n"
            "define_agent(on_agent_start=start)",
            "on_agent_start raised OSError: no model",
            'File "agent.py", line 3, in start',
        ),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_says_why(start_agent, source, message, in_stack):
    agent = await start_agent(source, loaded=False)
    crash = (await agent.gone()).crash
    assert crash is not None
    assert crash.kind is CrashKind.LOAD_FAILURE
    assert crash.message.startswith(message)
    assert crash.stack is not None
    assert in_stack in crash.stack
    assert "voicethere/agent" not in crash.stack
    assert agent.of(ipc.AgentLoaded) == []
