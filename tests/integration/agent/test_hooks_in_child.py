"""Hooks in a real child: what they are given, in which order, and what they may do."""

from __future__ import annotations

import json

from voicethere.wire import ipc

ON_BOTH_SANDBOXES = True

ECHO = """
    from voicethere.agent import define_agent, speak

    async def final(ctx):
        speak(ctx.session_id, f"You said: {ctx.text}")

    define_agent(on_user_speech_final=final, commands=["hello", "good bye"])
"""


async def test_a_loaded_agent_tells_what_it_registers(start_agent):
    agent = await start_agent(ECHO)
    assert agent.of(ipc.AgentLoaded) == [
        ipc.AgentLoaded(hooks=["on_user_speech_final"], commands=["hello", "good bye"])
    ]


async def test_what_the_user_said_is_answered(start_agent):
    agent = await start_agent(ECHO)
    await agent.start_session()
    agent.hear("hello")
    assert (await agent.said("You said: hello")).session_id == "s1"


async def test_every_hook_gets_its_context(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import Agent, send_to_client
        agent = Agent()

        def tell(ctx, **more):
            send_to_client(ctx.session_id, {
                "who": [ctx.session_id, ctx.project_id, ctx.build_id], "env": dict(ctx.env),
                "customer": ctx.customer_context, **more})

        started_with = []

        @agent.on_agent_start
        def begin(ctx):
            started_with.append(dict(ctx.env))

        @agent.on_client_join
        async def join(ctx):
            tell(ctx, hook="start", agent_env=started_with)

        @agent.on_speech_event
        async def event(ctx):
            tell(ctx, hook="event", type=ctx.event.type, text=ctx.event.text, error=ctx.event.error)

        @agent.on_user_speech_final
        def final(ctx):
            tell(ctx, hook="final", text=ctx.text)

        @agent.on_data_channel_message
        async def message(ctx):
            tell(ctx, hook="message", message=ctx.message, raw=ctx.raw, channel=ctx.channel)

        @agent.on_data_channel_binary
        def binary(ctx):
            tell(ctx, hook="binary", data=list(ctx.data), channel=ctx.channel)

        @agent.on_idle_timeout
        async def idle(ctx):
            tell(ctx, hook="idle", seconds=ctx.idle_timeout_seconds)

        @agent.on_client_leave
        def leave(ctx):
            tell(ctx, hook="end")
        """,
        env={"GREETING": "hi"},
    )
    await agent.start_session(env={"SESSION_ID": "s1", "A": "1"}, customer_context={"user": "ada"})
    agent.hear("hello")
    agent.data('{"type": "chat", "text": "yes"}')
    agent.data("not json")
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=b"\x01\x02", channel="sync"))
    agent.child.send(ipc.IdleTimeout(session_id="s1", idle_timeout_seconds=60, grace_seconds=30))
    await agent.end_session()

    told = [json.loads(message.payload) for message in agent.of(ipc.SendToClient)]
    common = {
        "who": ["s1", "p1", "b1"],
        "env": {"SESSION_ID": "s1", "A": "1"},
        "customer": {"user": "ada"},
    }
    assert told == [
        {**common, "hook": "start", "agent_env": [{"GREETING": "hi"}]},
        {**common, "hook": "event", "type": "user_speech_final", "text": "hello", "error": None},
        {**common, "hook": "final", "text": "hello"},
        {
            **common,
            "hook": "message",
            "message": {"type": "chat", "text": "yes"},
            "raw": '{"type": "chat", "text": "yes"}',
            "channel": "control",
        },
        {**common, "hook": "message", "message": "not json", "raw": "not json", "channel": "control"},
        {**common, "hook": "binary", "data": [1, 2], "channel": "sync"},
        {**common, "hook": "idle", "seconds": 60},
        {**common, "hook": "end"},
    ]
    assert agent.of(ipc.IdleTimeoutDone) == [ipc.IdleTimeoutDone(session_id="s1")]


async def test_os_environ_has_the_session_variables_of_the_only_session(start_agent):
    agent = await start_agent(
        """
        import os
        from voicethere.agent import define_agent, speak
        define_agent(on_session_start=lambda ctx: speak(ctx.session_id, repr(sorted(os.environ.items()))))
        """,
        env={"FIXED": "1"},
    )
    await agent.start_session("s1", env={"SESSION_ID": "s1", "ONLY_FIRST": "x"})
    await agent.end_session("s1")
    await agent.start_session("s2", env={"SESSION_ID": "s2"})
    first, second = (dict(eval(text)) for text in agent.spoken())
    assert {"FIXED": "1", "SESSION_ID": "s1", "ONLY_FIRST": "x"}.items() <= first.items()
    assert second["SESSION_ID"] == "s2"
    assert "ONLY_FIRST" not in second


async def test_messages_of_a_session_are_handled_one_at_a_time_and_in_order(start_agent):
    agent = await start_agent(
        """
        import asyncio
        from voicethere.agent import define_agent, speak
        running = 0

        async def start(ctx):
            await asyncio.sleep(0.05)
            speak(ctx.session_id, "started")

        async def message(ctx):
            global running
            running += 1
            assert running == 1
            await asyncio.sleep(0.02 if ctx.message == 1 else 0)
            speak(ctx.session_id, f"async {ctx.message}")
            running -= 1

        def binary(ctx):
            global running
            running += 1
            assert running == 1
            speak(ctx.session_id, f"plain {ctx.data.decode()}")
            running -= 1

        define_agent(on_session_start=start, on_data_channel_message=message, on_data_channel_binary=binary)
        """
    )
    agent.begin_session()
    for n in range(1, 4):
        agent.data(str(n))
        agent.child.send(ipc.DataChannelBinary(session_id="s1", data=str(n).encode(), channel="sync"))
    await agent.end_session()
    assert agent.spoken() == ["started", "async 1", "plain 1", "async 2", "plain 2", "async 3", "plain 3"]
    each = ["on_session_start", *["on_data_channel_message", "on_data_channel_binary"] * 3]
    assert agent.hooks == [f"{step}{hook}" for hook in each for step in "+-"]
    kinds = [type(event).__name__ for event in agent.events if not isinstance(event, ipc.AgentLoaded)]
    assert kinds[:2] == ["Speak", "SessionStartAck"]
    assert kinds[-1] == "SessionEndAck"


async def test_sessions_of_one_child_do_not_wait_for_each_other(start_agent):
    agent = await start_agent(
        """
        import asyncio, threading
        from voicethere.agent import define_agent, speak
        release = threading.Event()

        def message(ctx):
            if ctx.message == "wait":
                release.wait(20)
            else:
                release.set()
            speak(ctx.session_id, ctx.message)

        define_agent(on_data_channel_message=message)
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("wait", "s1")
    agent.data("go", "s2")
    await agent.said("wait")
    assert [(speak.session_id, speak.text) for speak in agent.of(ipc.Speak)] == [("s2", "go"), ("s1", "wait")]


async def test_nothing_of_a_session_is_handled_before_on_agent_start_is_done(start_agent):
    agent = await start_agent(
        """
        import asyncio
        from voicethere.agent import agent_log, define_agent

        async def begin(ctx):
            await asyncio.sleep(0.1)
            agent_log("info", "agent started")

        define_agent(on_agent_start=begin, on_session_start=lambda ctx: agent_log("info", "session started"))
        """,
        loaded=False,
    )
    await agent.start_session()
    assert agent.lines() == ["agent started", "session started"]


async def test_awaiting_speech_tells_whether_it_was_played(start_agent):
    agent = await start_agent(
        """
        import asyncio
        from voicethere.agent import define_agent, send_to_client, speak

        async def message(ctx):
            one, two, three = (speak(ctx.session_id, text) for text in ("one", "two", "three"))
            send_to_client(ctx.session_id, [await one, await two, one.outcome, three.outcome])
            send_to_client(ctx.session_id, await speak(ctx.session_id, "  "))
            asyncio.create_task(last(ctx, three))

        async def last(ctx, speech):
            send_to_client("s2", await speech)

        define_agent(on_data_channel_message=message)
        """
    )
    await agent.start_session()
    await agent.start_session("s2")
    agent.data("go")
    await agent.said("three")
    one, two, _ = agent.of(ipc.Speak)
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=two.speech_id, interrupted=True))
    agent.child.send(ipc.SpeechDone(session_id="s1", speech_id=one.speech_id, interrupted=False))
    await agent.event(ipc.SendToClient, nth=2)
    await agent.end_session("s1")  # what was not over then is interrupted
    await agent.event(ipc.SendToClient, nth=3)
    assert [json.loads(message.payload) for message in agent.of(ipc.SendToClient)] == [
        ["played", "interrupted", "played", None],
        "played",
        "interrupted",
    ]


async def test_after_the_end_of_a_session_speak_does_nothing(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import agent_log, define_agent, send_to_client, speak

        async def leave(ctx):
            agent_log("info", (await speak(ctx.session_id, "too late")).value)
            send_to_client(ctx.session_id, "good bye")

        define_agent(on_session_end=leave)
        """
    )
    await agent.start_session()
    await agent.end_session()
    assert agent.spoken() == []
    assert [message.payload for message in agent.of(ipc.SendToClient)] == ['"good bye"']
    assert "interrupted" in agent.lines()
    assert any("speak() did nothing" in line for line in agent.lines())


async def test_the_sdk_works_from_threads_and_tasks_and_knows_the_session_of_the_handler(start_agent):
    agent = await start_agent(
        """
        import asyncio, threading
        from voicethere.agent import agent_log, define_agent, speak

        def plain(ctx):
            agent_log("info", "in a plain hook")
            thread = threading.Thread(target=lambda: speak(ctx.session_id, "from a thread"))
            thread.start()
            thread.join()

        async def asynchronous(ctx):
            async def work():
                agent_log("warn", "in a task", {"n": 1})
            await asyncio.create_task(work())
            await asyncio.to_thread(agent_log, "error", "in to_thread")
            agent_log("debug", "of another", session_id="s2")

        define_agent(on_data_channel_message=plain, on_data_channel_binary=asynchronous)
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("go")
    await agent.said("from a thread")
    agent.child.send(ipc.DataChannelBinary(session_id="s1", data=b"", channel="sync"))
    await agent.log("of another")
    assert [
        (line.level, line.message, line.fields, line.session_id)
        for line in agent.events
        if hasattr(line, "level")
    ] == [
        ("info", "in a plain hook", None, "s1"),
        ("warn", "in a task", {"n": 1}, "s1"),
        ("error", "in to_thread", None, "s1"),
        ("debug", "of another", None, "s2"),
    ]


async def test_broadcast_binary_and_disconnect_reach_the_runner(start_agent):
    agent = await start_agent(
        """
        from voicethere.agent import broadcast_to_clients, define_agent, disconnect_client
        from voicethere.agent import send_binary_to_client

        def message(ctx):
            broadcast_to_clients({"a": "ä"}, ["s1", "s2"])
            send_binary_to_client(ctx.session_id, bytearray(b"12"))
            send_binary_to_client(ctx.session_id, b"34", "control")
            disconnect_client(ctx.session_id, "done")

        define_agent(on_data_channel_message=message)
        """
    )
    await agent.start_session("s1")
    await agent.start_session("s2")
    agent.data("go")
    await agent.event(ipc.DisconnectClient)
    assert agent.events[-5:] == [
        ipc.SendToClient(session_id="s1", payload='{"a":"ä"}'),
        ipc.SendToClient(session_id="s2", payload='{"a":"ä"}'),
        ipc.SendBinaryToClient(session_id="s1", data=b"12", channel="sync"),
        ipc.SendBinaryToClient(session_id="s1", data=b"34", channel="control"),
        ipc.DisconnectClient(session_id="s1", reason="done"),
    ]


async def test_what_is_printed_is_logged_at_once_and_never_corrupts_the_channel(start_agent):
    agent = await start_agent(
        """
        import os, sys
        from voicethere.agent import define_agent, speak

        def message(ctx):
            print("a line", flush=False)
            print("to stderr", file=sys.stderr)
            os.write(1, b"\\x00\\x00\\x00\\x05junk \\xff\\n")
            speak(ctx.session_id, "still here")

        define_agent(on_data_channel_message=message)
        """
    )
    await agent.start_session()
    agent.data("go")
    await agent.said("still here")
    assert (await agent.log("a line")).level == "info"
    assert (await agent.log("to stderr")).level == "warn"
    await agent.log("junk")


async def test_a_bundle_may_have_modules_of_its_own(start_agent):
    agent = await start_agent(
        """
        from talk.words import greeting
        from voicethere.agent import define_agent, speak
        define_agent(on_session_start=lambda ctx: speak(ctx.session_id, greeting))
        """,
        files={"talk/__init__.py": "", "talk/words.py": "greeting = 'hello'"},
    )
    await agent.start_session()
    assert agent.spoken() == ["hello"]


async def test_a_client_that_floods_a_slow_handler_costs_messages_not_the_session(start_agent):
    agent = await start_agent(
        """
        import threading
        from voicethere.agent import define_agent, speak
        first, release = threading.Event(), threading.Event()

        def message(ctx):
            if not first.is_set():
                first.set()
                release.wait(20)

        def binary(ctx):
            release.set()

        define_agent(on_data_channel_message=message, on_session_start=lambda ctx: release.set()
                     if ctx.session_id == "s2" else None,
                     on_session_end=lambda ctx: speak("s2", "all done"))
        """
    )
    await agent.start_session("s1")
    for n in range(1500):
        agent.data(str(n))
    await agent.start_session("s2")
    agent.child.session_end("s1")
    await agent.said("all done")
    assert (await agent.log("messages of the client were dropped")).session_id == "s1"
