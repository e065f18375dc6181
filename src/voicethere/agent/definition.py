"""Defining an agent: which hooks there are, and what is wrong with a definition.

Knows the hook table and checks what an author registers. It does not run anything (`child` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from voicethere.agent.process import this_process
from voicethere.agent.words import did_you_mean, snake_case
from voicethere.wire.ipc import MAX_COMMAND_CHARS, MAX_COMMANDS

Hook = Callable[[Any], Any]
_HookType = TypeVar("_HookType", bound=Hook)

HOOKS = (
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
"""Every hook, by the name that everything but the author's own code knows it by."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {"on_client_join": "on_session_start", "on_client_leave": "on_session_end"}
)


class AgentDefinitionError(Exception):
    """The bundle does not define an agent, or not well; the words say what would be right."""


class Agent:
    """An agent, defined by decorators. One per bundle; the same as `define_agent`.

    Example:
        >>> agent = Agent(commands=["hello"])
        >>> @agent.on_user_speech_final
        ... async def answer(ctx):
        ...     speak(ctx.session_id, "Hello to you.")

    Raises:
        AgentDefinitionError: the bundle has an agent already, or the commands are not phrases.
    """

    def __init__(self, *, commands: Iterable[str] = ()) -> None:
        self.commands: tuple[str, ...] = _checked_commands(commands)
        self._hooks: dict[str, Hook] = {}
        self._names_used: dict[str, str] = {}
        self._sealed = False
        if this_process.agent is not None:
            raise AgentDefinitionError(
                "this bundle has an agent already: call define_agent() (or Agent()) once, with all hooks"
            )
        this_process.agent = self

    # -- the decorators, named as the hooks are

    def on_agent_start(self, hook: _HookType) -> _HookType:
        """Once per child, before any session; gets an `AgentStartContext`."""
        return self._register("on_agent_start", hook)

    def on_session_start(self, hook: _HookType) -> _HookType:
        """When the client is there; gets a `SessionContext`."""
        return self._register("on_session_start", hook)

    def on_client_join(self, hook: _HookType) -> _HookType:
        """The same as `on_session_start`."""
        return self._register("on_client_join", hook)

    def on_session_end(self, hook: _HookType) -> _HookType:
        """When the session is over; gets a `SessionContext`."""
        return self._register("on_session_end", hook)

    def on_client_leave(self, hook: _HookType) -> _HookType:
        """The same as `on_session_end`."""
        return self._register("on_client_leave", hook)

    def on_speech_event(self, hook: _HookType) -> _HookType:
        """Every speech event; gets a `SpeechEventContext`."""
        return self._register("on_speech_event", hook)

    def on_user_speech_final(self, hook: _HookType) -> _HookType:
        """When the user has said something; gets a `UserSpeechFinalContext`."""
        return self._register("on_user_speech_final", hook)

    def on_data_channel_message(self, hook: _HookType) -> _HookType:
        """A message of the client's application; gets a `DataChannelMessageContext`."""
        return self._register("on_data_channel_message", hook)

    def on_data_channel_binary(self, hook: _HookType) -> _HookType:
        """A binary message of the client's; gets a `DataChannelBinaryContext`."""
        return self._register("on_data_channel_binary", hook)

    def on_idle_timeout(self, hook: _HookType) -> _HookType:
        """Before the session ends because nothing happened; gets an `IdleTimeoutContext`."""
        return self._register("on_idle_timeout", hook)

    def error_hook(self, hook: _HookType) -> _HookType:
        """When another hook raised; gets an `ErrorContext`, has 5 s, must not raise."""
        return self._register("error_hook", hook)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"an Agent has no hook {name!r}{_hook_meant(name)}")

    # -- for the child

    @property
    def hooks(self) -> Mapping[str, Hook]:
        """What is registered, by the hooks' own names (not their aliases), in the order of `HOOKS`."""
        return MappingProxyType({name: self._hooks[name] for name in HOOKS if name in self._hooks})

    def seal(self) -> None:
        """The bundle is imported: the definition is complete from now on."""
        self._sealed = True

    def _register(self, name: str, hook: _HookType) -> _HookType:
        if self._sealed:
            raise AgentDefinitionError(
                f"{name} was registered too late: hooks are registered while the bundle is imported"
            )
        check_hook_shape(name, hook)
        canonical = ALIASES.get(name, name)
        earlier = self._names_used.get(canonical)
        if earlier == name:
            raise AgentDefinitionError(f"{name} is registered twice: a hook is one function")
        if earlier is not None:
            raise AgentDefinitionError(
                f"{name} and {earlier} are the same hook under two names: register one of them"
            )
        self._names_used[canonical] = name
        self._hooks[canonical] = hook
        return hook


def define_agent(
    *,
    commands: Iterable[str] = (),
    on_agent_start: Hook | None = None,
    on_session_start: Hook | None = None,
    on_client_join: Hook | None = None,
    on_session_end: Hook | None = None,
    on_client_leave: Hook | None = None,
    on_speech_event: Hook | None = None,
    on_user_speech_final: Hook | None = None,
    on_data_channel_message: Hook | None = None,
    on_data_channel_binary: Hook | None = None,
    on_idle_timeout: Hook | None = None,
    error_hook: Hook | None = None,
    **unknown: object,
) -> Agent:
    """Define the bundle's agent: once, while the bundle is imported.

    Each hook is a function, `async` or plain, that takes its context object. `commands` are the phrases
    that the offline recognizer knows. A hook that is None is not registered.

    Raises:
        AgentDefinitionError: an unknown hook, a hook of the wrong shape, commands that are not phrases, no
            hook at all, or a second definition.
    """
    given = {
        "on_agent_start": on_agent_start,
        "on_session_start": on_session_start,
        "on_client_join": on_client_join,
        "on_session_end": on_session_end,
        "on_client_leave": on_client_leave,
        "on_speech_event": on_speech_event,
        "on_user_speech_final": on_user_speech_final,
        "on_data_channel_message": on_data_channel_message,
        "on_data_channel_binary": on_data_channel_binary,
        "on_idle_timeout": on_idle_timeout,
        "error_hook": error_hook,
    }
    for name in unknown:
        raise AgentDefinitionError(f"define_agent() knows no hook {name!r}{_hook_meant(name)}")
    hooks = {name: hook for name, hook in given.items() if hook is not None}
    if not hooks:
        raise AgentDefinitionError(f"define_agent() was given no hook; it takes {', '.join(HOOKS)}")
    for name, hook in hooks.items():
        check_hook_shape(name, hook)
    agent = Agent(commands=commands)
    for name, hook in hooks.items():
        agent._register(name, hook)
    return agent


def check_hook_shape(name: str, hook: object) -> None:
    """Raises AgentDefinitionError unless `hook` can be called with its context and nothing else."""
    import inspect  # only while a bundle is loaded

    if not callable(hook):
        raise AgentDefinitionError(
            f"{name} must be a function that takes one context object, not {type(hook).__name__}"
        )
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise AgentDefinitionError(f"{name} must not yield: a hook is called once and returns")
    try:
        signature = inspect.signature(hook)
    except (ValueError, TypeError):
        return  # some builtins have none; calling it will tell
    try:
        signature.bind(object())
    except TypeError as error:
        shown = f"{getattr(hook, '__name__', type(hook).__name__)}{signature}"
        raise AgentDefinitionError(
            f"{name} must take exactly one argument, its context: "
            f"`def {name}(ctx)`; {shown[:200]} does not ({error})"
        ) from None


def _checked_commands(commands: object) -> tuple[str, ...]:
    right = 'commands is a list of phrases, such as ["hello", "what time is it"]'
    if isinstance(commands, (str, bytes)) or not isinstance(commands, Iterable):
        raise AgentDefinitionError(f"{right}; not {commands!r:.80}")
    phrases: list[str] = []
    for index, phrase in enumerate(commands):
        if not isinstance(phrase, str):
            raise AgentDefinitionError(f"{right}; commands[{index}] is {type(phrase).__name__}, not str")
        if not phrase.strip():
            raise AgentDefinitionError(f"{right}; commands[{index}] is empty")
        if len(phrase) > MAX_COMMAND_CHARS:
            raise AgentDefinitionError(
                f"commands[{index}] has {len(phrase)} characters; a phrase has at most {MAX_COMMAND_CHARS}"
            )
        if index >= MAX_COMMANDS:
            raise AgentDefinitionError(f"commands has more than {MAX_COMMANDS} phrases")
        phrases.append(phrase)
    return tuple(phrases)


def _hook_meant(name: str) -> str:
    known = (*HOOKS, *ALIASES)
    meant = snake_case(name)
    if meant in known:
        return f"; did you mean {meant!r}?"
    return did_you_mean(name, known) or f"; the hooks are {', '.join(known)}"


def defined_agent() -> Agent:
    """The agent that the imported bundle defined.

    Raises:
        AgentDefinitionError: it defined none, or one without hooks.
    """
    agent = this_process.agent
    if agent is None:
        raise AgentDefinitionError(
            "agent.py defines no agent: call define_agent(on_user_speech_final=..., ...) at its top level"
        )
    if not agent.hooks:
        raise AgentDefinitionError(
            "the Agent of this bundle has no hooks: decorate functions with @agent.on_user_speech_final, ..."
        )
    agent.seal()
    return agent
