"""What a configuration as a whole must fulfil, beyond the types of its values."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from voicethere.adapters.bundles import open_bundle_store
from voicethere.cli.configuration.settings import Configuration
from voicethere.roles.runner.settings import InvalidSetting, RunnerSettings, changed

Problem = tuple[str, str]
"""`(key, what is wrong and what would be right)`; never with the value of a secret."""

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_POSTGRESQL_SCHEMES = ("postgresql", "postgresql+psycopg")
_ICE_SCHEMES = ("stun:", "stuns:", "turn:", "turns:")


def problems_of(configuration: Configuration, role: str | None) -> Iterator[Problem]:
    """All of them. `role` is None where no role is meant in particular."""
    yield from _engines(configuration, role)
    yield from _addresses(configuration)
    yield from _ice(configuration)
    if configuration.port and configuration.port == configuration.ops_port:
        yield "ops_port", f"{configuration.ops_port} is `port` already; the ops endpoint needs one of its own"
    try:
        changed(
            RunnerSettings(runner_id="checked"),
            [f"{name}={value}" for name, value in configuration.runner_settings.items()],
        )
    except InvalidSetting as problem:
        yield "runner_settings", str(problem)


def _engines(configuration: Configuration, role: str | None) -> Iterator[Problem]:
    database, redis = configuration.database_url, configuration.redis_url
    if role == "up":
        for key, url in (("redis_url", redis), ("database_url", database)):
            if url is not None:
                yield (
                    key,
                    "`voicethere up` runs everything on this machine, on files of its own; "
                    "for engines of yours run the roles with `voicethere serve`",
                )
        return
    postgresql = False
    if database is not None:
        parts = _split(database)
        postgresql = parts is not None and parts.scheme in _POSTGRESQL_SCHEMES
        if parts is None or not (postgresql or parts.scheme == "sqlite"):
            yield "database_url", "no URL of a database; it must be like postgresql://USER:PASSWORD@HOST/NAME"
            return
        if postgresql and not parts.path.strip("/"):
            yield (
                "database_url",
                "names no database; it must be like postgresql://USER:PASSWORD@HOST/NAME",
            )
            return
        if parts.scheme == "sqlite" and not parts.path.strip("/"):
            yield "database_url", "names no file; it must be like sqlite:////var/lib/voicethere/voicethere.db"
    if redis is not None:
        parts = _split(redis)
        if parts is None or parts.scheme not in _REDIS_SCHEMES or not (parts.hostname or parts.path):
            yield "redis_url", "no URL of a Redis; it must be like redis://HOST:6379/0 or unix:///PATH"
            return
    # A runner touches no database: it may be told of Redis alone.
    if redis is not None and not postgresql and role != "runner":
        yield (
            "database_url",
            "redis_url is for roles on several machines, which must share a database as well; SQLite is a "
            "file of one machine: set database_url to postgresql://…, or leave redis_url out",
        )
    if postgresql and redis is None:
        yield (
            "redis_url",
            "database_url is for roles on several machines, which must share a queue and a relay as well; "
            "without redis_url those are files of this machine: set redis_url to redis://…, or leave "
            "database_url out",
        )
    if configuration.bundles_url is not None:
        if _split(configuration.bundles_url) is None:
            yield "bundles_url", "no place for bundles; it must be a folder, or like s3://BUCKET/PREFIX"
            return
        try:
            open_bundle_store(configuration.bundles_url)
        except ValueError as problem:
            yield "bundles_url", str(problem)


def _addresses(configuration: Configuration) -> Iterator[Problem]:
    for key, url in (
        ("public_url", configuration.public_url),
        ("otel_endpoint", configuration.otel_endpoint),
    ):
        if url is None:
            continue
        parts = _split(url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            yield key, "no HTTP address; it must be like https://voice.example.com"
        elif parts.query or parts.fragment:
            yield key, "has a query or a fragment; it must be like https://voice.example.com"
        elif key == "otel_endpoint" and parts.path.rstrip("/").endswith("/v1/traces"):
            yield key, "ends in /v1/traces, which is added to it; it must be like http://collector:4318"
    for address in configuration.host_addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield "host_addresses", f"{address!r} is no IP address, as 192.0.2.1 is"


def _ice(configuration: Configuration) -> Iterator[Problem]:
    for number, server in enumerate(configuration.ice_servers, 1):
        urls = [server.urls] if isinstance(server.urls, str) else server.urls
        if not urls:
            yield "ice_servers", f"server {number} has no urls; they must be like stun:HOST:3478"
        for url in urls:
            if not url.startswith(_ICE_SCHEMES) or not url.partition(":")[2]:
                yield (
                    "ice_servers",
                    f"{url!r} of server {number} is no ICE server; it must be like stun:HOST:3478 or "
                    "turn:HOST:3478?transport=udp",
                )
            elif url.startswith("turn") and not (server.username and server.credential):
                yield "ice_servers", f"server {number} is a TURN server and needs username and credential"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
