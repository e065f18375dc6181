"""Where a conversation is: the gateway's address, and the headers that open it.

| given | address | headers |
| --- | --- | --- |
| `--base-url URL` | that | `Authorization` with `--key`, if that was given here too |
| a client key (`vthc_…`) | `<api base>/c/<key>` | none: the key is made to be published |
| any other key | `<api base>/c/<project id>` | `Authorization` |

The stored key goes to the stored server alone, never to an address from the command line.
"""

from __future__ import annotations

import secrets

import msgspec

from voicethere.cli.config import api_url, effective_credentials, project_config
from voicethere.cli.failure import Failure

CLIENT_KEY_PREFIX = "vthc_"
_API_PATH = "/api/v1"
_ISSUE_SECONDS = 15.0


class ChatTarget(msgspec.Struct, frozen=True):
    """`base_url` is the chat gateway's base; it may have a client key in it."""

    base_url: str
    headers: dict[str, str]


class _Issued(msgspec.Struct, frozen=True):
    conv_id: str


def chat_target(base_url: str | None, project: str | None, key: str | None) -> ChatTarget:
    """What the options and the configuration say.

    Raises:
        Failure: there is no key, or no project for a key that needs one; or a file is broken.
    """
    if base_url is not None:
        return ChatTarget(base_url.rstrip("/"), _authorization(key) if key else {})
    found = effective_credentials()
    key = key or found.api_key
    if not key:
        raise Failure(
            "no key: pass --key with a client key of the project, run `voicethere login`, or pass --base-url."
        )
    assert found.api_base is not None
    root = api_url(found.api_base).removesuffix(_API_PATH)
    if key.startswith(CLIENT_KEY_PREFIX):
        _authorization(key)  # checks its characters
        return ChatTarget(f"{root}/c/{key}", {})
    return ChatTarget(f"{root}/c/{_project_id(found.api_base, key, project)}", _authorization(key))


def new_conversation_id() -> str:
    """128 random bits: knowing a conversation's id is what lets a client read it."""
    return secrets.token_hex(16)


def issued_conversation_id(target: ChatTarget) -> str:
    """A conversation id from the gateway, for projects that take no others.

    Raises:
        Failure: the gateway gave none.
    """
    import httpx

    from voicethere.errors.bounds import cut_end

    try:
        response = httpx.post(
            f"{target.base_url}/conversations",
            headers=target.headers,
            timeout=_ISSUE_SECONDS,
            # A proxy that the environment names cannot reach this machine's own loopback.
            trust_env=httpx.URL(target.base_url).host not in ("127.0.0.1", "localhost", "::1"),
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Failure(f"the gateway did not issue a conversation id: {error}") from error
    if not response.is_success:
        said = cut_end(response.text.strip(), 300) or f"status {response.status_code}"
        raise Failure(f"the gateway did not issue a conversation id: {said}")
    try:
        return msgspec.json.decode(response.content, type=_Issued).conv_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(
            "the gateway's answer has no conversation id: is the address that of a chat gateway?"
        ) from error


def _authorization(key: str) -> dict[str, str]:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Failure("the key has characters that no key has: check --key and VOICETHERE_API_KEY.")
    return {"authorization": f"Bearer {key}"}


def _project_id(api_base: str, key: str, project: str | None) -> str:
    from voicethere.cli.api import ControlApi, path_part

    if project is None:
        active = project_config()
        if active is None:
            raise Failure("no active project: run `voicethere projects use NAME`, or pass --project.")
        return path_part(active.project_id)
    with ControlApi(api_base, key) as api:
        return path_part(api.find_project(project).id)
