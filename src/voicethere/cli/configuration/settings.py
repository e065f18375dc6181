"""Every setting of every role, with its default, its words, and what is right for it.

The annotations are the one definition: options, variables, checks and the docs' table are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from voicethere.wire.session_api import IceServer

ROLES = ("control", "sessions", "gateway", "runner", "worker")
"""What `voicethere serve` runs; `up` is all of them on one machine."""

_STORED = ("control", "sessions", "gateway", "worker")
_HTTP = ("control", "sessions", "gateway", "up")
_CHAT = ("sessions", "gateway", "up")
_SESSIONS = ("sessions", "up")
_RUNNER = ("runner", "up")
_WORKER = ("sessions", "worker", "up")
_EVERYWHERE = (*ROLES, "up")

DEFAULT_PORTS: Mapping[str, int] = {"control": 8080, "sessions": 8081, "gateway": 8082, "up": 8080}

PortNumber = Annotated[int, Meta(ge=0, le=65535)]
RunnerName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@dataclass(frozen=True)
class Setting:
    """`words` describe it, `right` says what a value must be, `roles` use it. `secret`: never shown whole.

    `flag` is the option where that is not the key with dashes; a `repeatable` one is given once per item.
    """

    words: str
    right: str
    roles: tuple[str, ...]
    flag: str | None = None
    secret: bool = False
    repeatable: bool = False


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What one process goes by. Times in seconds. None where nothing was said."""

    data_dir: Annotated[
        Path,
        Setting(
            "Where this machine keeps everything, or, with engines, its spools and scratch.",
            "a folder",
            _EVERYWHERE,
        ),
    ] = Path(".voicethere/data")
    database_url: Annotated[
        str | None,
        Setting(
            "The database. Default: SQLite in the data directory.",
            "postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///PATH without Redis",
            _STORED,
            secret=True,
        ),
    ] = None
    redis_url: Annotated[
        str | None,
        Setting(
            "Queue, relay and lease on this Redis. Default: files and a socket in the data directory.",
            "redis://HOST:PORT/0, rediss://… or unix:///PATH",
            ROLES,
            secret=True,
        ),
    ] = None
    redis_prefix: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$"),
        Setting(
            "What all keys and channels on Redis begin with: one per platform.",
            "1 to 64 letters, digits, '.', '_' or '-'",
            ROLES,
        ),
    ] = "voicethere"
    bundles_url: Annotated[
        str | None,
        Setting(
            "Where uploaded bundles are kept. Default: the data directory.",
            "a folder, file:///FOLDER or s3://BUCKET/PREFIX",
            ("control", "runner"),
            secret=True,
        ),
    ] = None

    host: Annotated[str, Setting("The address to listen on.", "an address of this machine", _HTTP)] = (
        "127.0.0.1"
    )
    port: Annotated[
        PortNumber | None,
        Setting(
            "The port; 0 takes a free one. Default: 8080 (control, up), 8081 (sessions), 8082 (gateway).",
            "a number from 0 to 65535",
            _HTTP,
        ),
    ] = None
    public_url: Annotated[
        str | None,
        Setting(
            "What clients see, where that is another address.", "http://… or https://… with a host", _HTTP
        ),
    ] = None
    trust_forwarded_headers: Annotated[
        bool,
        Setting(
            "Believe X-Forwarded-Proto and X-Forwarded-Host: only behind a proxy that sets them.",
            "true or false",
            _SESSIONS,
        ),
    ] = False
    ice_servers: Annotated[
        list[IceServer],
        Setting(
            "STUN and TURN servers that clients are given, as a JSON list.",
            '[{"urls": "turn:HOST:3478", "username": "…", "credential": "…"}]',
            _SESSIONS,
            secret=True,
        ),
    ] = []

    ops_host: Annotated[
        str, Setting("The address of the ops endpoint.", "an address of this machine", _EVERYWHERE)
    ] = "127.0.0.1"
    ops_port: Annotated[
        PortNumber | None,
        Setting(
            "Serve /healthz, /readyz and /metrics on this port; 0 takes a free one. Default: nowhere.",
            "a number from 0 to 65535, and not `port`",
            _EVERYWHERE,
        ),
    ] = None

    runner_id: Annotated[
        RunnerName | None,
        Setting(
            "A name that no other runner has. Default: made of host name, process id and chance.",
            "1 to 128 letters, digits, '.', '_', ':' or '-'",
            ("runner",),
        ),
    ] = None
    capacity: Annotated[
        int,
        Meta(ge=1, le=10_000),
        Setting("Sessions that this runner hosts at once.", "a number from 1 to 10000", _RUNNER),
    ] = 64
    host_addresses: Annotated[
        list[str],
        Setting(
            "An address to offer to clients; repeatable. Default: all of this machine.",
            "IP addresses",
            _RUNNER,
            flag="--host-address",
            repeatable=True,
        ),
    ] = []
    strict_sandbox: Annotated[
        bool,
        Setting("Refuse to run where a confinement mechanism is missing.", "true or false", _RUNNER),
    ] = False
    runner_settings: Annotated[
        dict[str, bool | int | float],
        Setting(
            "A setting of the runner, such as rejoin_seconds=10; repeatable.",
            "NAME=VALUE, or a table of them",
            _RUNNER,
            flag="--set",
            repeatable=True,
        ),
    ] = {}

    max_idle_seconds: Annotated[
        int,
        Meta(ge=30, le=86_400),
        Setting(
            "The most that a project may set as its idle limits.",
            "a number from 30 to 86400",
            ("control", "up"),
        ),
    ] = 120

    no_chat: Annotated[
        bool,
        Setting("Leave conversations to `serve gateway`.", "true or false", ("sessions",)),
    ] = False
    chat_sockets: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Setting("Chat clients that this process serves at once.", "a number from 1 to 1000000", _CHAT),
    ] = 20_000
    no_worker: Annotated[
        bool,
        Setting("Leave storing errors to `serve worker`.", "true or false", ("sessions",)),
    ] = False
    retention_days: Annotated[
        int,
        Meta(ge=0, le=36_500),
        Setting(
            "Delete errors and ended sessions after so many days, unless their project says; 0: never.",
            "a number from 0 to 36500",
            _WORKER,
        ),
    ] = 0
    retention_errors: Annotated[
        int,
        Meta(ge=0, le=1_000_000_000),
        Setting(
            "Keep at most so many errors of a project, unless it says; 0: all.",
            "a number from 0 to 1000000000",
            _WORKER,
        ),
    ] = 0
    retention_seconds: Annotated[
        float,
        Meta(ge=1, le=86_400),
        Setting("How often the worker looks for what is past its time.", "a number from 1 to 86400", _WORKER),
    ] = 300.0

    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=86_400),
        Setting(
            "After SIGTERM: how long sessions and requests may go on. A second SIGTERM hurries.",
            "a number from 0 to 86400",
            _EVERYWHERE,
        ),
    ] = 0.0
    unready_seconds: Annotated[
        float,
        Meta(ge=0, le=600),
        Setting(
            "After SIGTERM: how long to serve on while /readyz says no, so that load balancers notice.",
            "a number from 0 to 600",
            ("control", "sessions", "gateway"),
        ),
    ] = 0.0

    log_level: Annotated[
        LogLevel,
        Setting("What is logged.", "DEBUG, INFO, WARNING or ERROR", _EVERYWHERE),
    ] = "INFO"
    log_file: Annotated[
        Path | None,
        Setting(
            "Where the log goes: set aside at 50 MiB, three of those are kept. Default: standard error.",
            "a file",
            ROLES,
        ),
    ] = None
    otel_endpoint: Annotated[
        str | None,
        Setting(
            "Send OpenTelemetry traces there, by OTLP over HTTP. Default: none.",
            "http://HOST:4318 (without /v1/traces)",
            _EVERYWHERE,
            secret=True,
        ),
    ] = None

    @property
    def distributed(self) -> bool:
        """Whether the engines are servers that several machines share."""
        return self.redis_url is not None


@dataclass(frozen=True)
class Described:
    """One setting as the annotations have it: `type` for msgspec, without the words."""

    key: str
    type: Any
    default: Any
    setting: Setting

    @property
    def option(self) -> str:
        """Its flag."""
        return self.setting.flag or "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"VOICETHERE_{self.key.upper()}"

    @property
    def plain_type(self) -> Any:
        """The type without annotations and without None: what a text is read as."""
        kind = get_args(self.type)[0]
        if type(None) in get_args(kind):
            kind = next(one for one in get_args(kind) if one is not type(None))
        return get_args(kind)[0] if get_origin(kind) is Annotated else kind


@cache
def described() -> Mapping[str, Described]:
    """Every setting by its key, in order."""
    hints = get_type_hints(Configuration, include_extras=True)
    fields = {field.name: field for field in msgspec.structs.fields(Configuration)}
    found = {}
    for key, hint in hints.items():
        field = fields[key]
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        setting = next(one for one in hint.__metadata__ if isinstance(one, Setting))
        found[key] = Described(key=key, type=hint, default=default, setting=setting)
    return found


def settings_of(role: str) -> list[Described]:
    """Those that this role uses."""
    return [one for one in described().values() if role in one.setting.roles]
