"""define_agent and Agent: the hook table, and what is said of a definition that is wrong."""

from __future__ import annotations

import functools

import pytest

from voicethere.agent import Agent, AgentDefinitionError, define_agent
from voicethere.agent.definition import ALIASES, HOOKS, defined_agent


def hook(ctx):
    return None


async def async_hook(ctx):
    return None


class Bot:
    def method(self, ctx):
        return None

    def __call__(self, ctx):
        return None


def test_the_hooks_are_those_of_the_contract():
    assert HOOKS == (
        "on_agent_start",
        "on_session_start",
        "on_session_end",
        "on_speech_event",
        "on_user_speech_final",
        "on_data_channel_message",
        "on_data_channel_binary",
        "on_idle_timeout",
        "error_hook",
    )
    assert ALIASES == {"on_client_join": "on_session_start", "on_client_leave": "on_session_end"}


@pytest.mark.parametrize("name", [*HOOKS, *ALIASES])
def test_every_hook_can_be_given_in_both_ways(name):
    given = define_agent(**{name: hook}, commands=["hello"])
    assert dict(given.hooks) == {ALIASES.get(name, name): hook}
    assert given.commands == ("hello",)
    from voicethere.agent.process import this_process

    this_process.agent = None
    agent = Agent(commands=("hello",))
    assert getattr(agent, name)(hook) is hook
    assert dict(agent.hooks) == dict(given.hooks)
    assert defined_agent() is agent


@pytest.mark.parametrize(
    "good",
    [hook, async_hook, Bot().method, Bot(), functools.partial(lambda a, ctx: a, 1), lambda *all: 0, print],
)
def test_whatever_takes_one_argument_is_a_hook(good):
    assert define_agent(error_hook=good).hooks["error_hook"] is good


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("text", "on_session_end must be a function that takes one context object, not str"),
        (lambda: 0, "on_session_end must take exactly one argument, its context: `def on_session_end(ctx)`"),
        (lambda a, b: 0, "does not (missing a required argument: 'b')"),
        (lambda ctx, *, extra: 0, "does not (missing a required argument: 'extra')"),
        (lambda *, ctx: 0, "does not (too many positional arguments)"),
        (lambda ctx: (yield), "on_session_end must not yield"),
    ],
)
def test_a_hook_of_the_wrong_shape_is_named(bad, words):
    with pytest.raises(AgentDefinitionError) as caught:
        define_agent(on_session_end=bad)
    assert words in str(caught.value)
    with pytest.raises(AgentDefinitionError):
        Agent().on_session_end(bad)


def test_an_async_generator_is_no_hook():
    async def yields(ctx):
        yield 1

    with pytest.raises(AgentDefinitionError, match="must not yield"):
        define_agent(error_hook=yields)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("on_user_speach_final", "did you mean 'on_user_speech_final'?"),
        ("onUserSpeechFinal", "did you mean 'on_user_speech_final'?"),
        ("errorHook", "did you mean 'error_hook'?"),
        ("on_client_joined", "did you mean 'on_client_join'?"),
        ("zzz", "the hooks are on_agent_start, "),
    ],
)
def test_an_unknown_hook_gets_a_suggestion(name, words):
    with pytest.raises(AgentDefinitionError) as caught:
        define_agent(**{name: hook})
    assert words in str(caught.value)
    with pytest.raises(AttributeError) as missing:
        getattr(Agent(), name)
    assert words in str(missing.value)


def test_one_agent_a_bundle():
    define_agent(error_hook=hook)
    for again in (lambda: define_agent(error_hook=hook), Agent):
        with pytest.raises(AgentDefinitionError, match="has an agent already"):
            again()


def test_a_failed_definition_does_not_count():
    with pytest.raises(AgentDefinitionError):
        define_agent(error_hook=3)
    with pytest.raises(AgentDefinitionError):
        define_agent(error_hook=hook, commands="hello")
    define_agent(error_hook=hook)


def test_a_hook_is_one_function():
    with pytest.raises(AgentDefinitionError, match="the same hook under two names"):
        define_agent(on_session_start=hook, on_client_join=hook)
    from voicethere.agent.process import this_process

    this_process.agent = None
    agent = Agent()
    agent.error_hook(hook)
    with pytest.raises(AgentDefinitionError, match="error_hook is registered twice"):
        agent.error_hook(async_hook)


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ("hello", "commands is a list of phrases"),
        (3, "commands is a list of phrases"),
        ([3], "commands[0] is int, not str"),
        (["a", " "], "commands[1] is empty"),
        (["a" * 201], "a phrase has at most 200"),
        (["a"] * 1001, "more than 1000 phrases"),
    ],
)
def test_commands_are_phrases(commands, words):
    with pytest.raises(AgentDefinitionError) as caught:
        define_agent(error_hook=hook, commands=commands)
    assert words in str(caught.value)


def test_no_agent_and_no_hooks_are_told():
    with pytest.raises(AgentDefinitionError, match="defines no agent"):
        defined_agent()
    with pytest.raises(AgentDefinitionError, match="was given no hook"):
        define_agent(commands=["hello"], error_hook=None)
    agent = Agent()
    with pytest.raises(AgentDefinitionError, match="has no hooks"):
        defined_agent()
    agent.error_hook(hook)
    assert defined_agent() is agent
    with pytest.raises(AgentDefinitionError, match="registered too late"):
        agent.on_session_end(hook)
