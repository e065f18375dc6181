"""The CLI's way to the control plane: one request, its answer decoded, every failure one clear line."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from voicethere import __version__
from voicethere.cli.config import api_url, effective_credentials, project_config
from voicethere.cli.failure import Failure
from voicethere.wire.control_plane import Project, ProjectList
from voicethere.wire.http import HttpErrorBody

T = TypeVar("T")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 120.0  # an upload is answered once the bundle was loaded in the sandbox


class Refused(Failure):
    """An answer that is an error, with its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ControlApi:
    """A session of requests to one control plane. Use as a context manager."""

    def __init__(self, base: str, key: str) -> None:
        self.base = api_url(base)
        self._http = httpx.Client(
            base_url=self.base,
            headers={
                "authorization": f"Bearer {_header_safe(key)}",
                "user-agent": f"voicethere-cli/{__version__}",
            },
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            # A proxy that the environment names cannot reach this machine's own loopback.
            trust_env=urlsplit(self.base).hostname not in _LOOPBACK,
        )

    @classmethod
    def connect(cls) -> ControlApi:
        """With the credentials in force.

        Raises:
            Failure: there is no key, or a file is broken.
        """
        found = effective_credentials()
        if not found.api_key:
            raise Failure("no key: run `voicethere login`, or set VOICETHERE_API_KEY.")
        assert found.api_base is not None
        return cls(found.api_base, found.api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, kind: type[T], **params: str | int | None) -> T:
        """GET, decoded as `kind`; parameters that are None are left out."""
        given = {name: value for name, value in params.items() if value is not None}
        return self.send("GET", path, kind, params=given)

    def raw(self, path: str, **params: str | int | None) -> Any:
        """GET, as plain JSON values (for `--json`: fields that this CLI does not know stay)."""
        given = {name: value for name, value in params.items() if value is not None}
        return self.send("GET", path, object, params=given)

    def send(self, method: str, path: str, kind: type[T], **options: Any) -> T:
        """Any request, its JSON answer decoded as `kind` (`type(None)` where there is none).

        Raises:
            Refused: an answer that is an error.
            Failure: no answer, or one that is not of this API.
        """
        try:
            response = self._http.request(method, path, **options)
        except httpx.ConnectError as error:
            raise Failure(f"cannot reach {self.base}: {error}. Is it running? (`voicethere up`)") from error
        except httpx.TimeoutException as error:
            raise Failure(f"{self.base} did not answer in time ({type(error).__name__}).") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failure(f"the request to {self.base} failed: {error}") from error
        if response.status_code >= 400:
            raise _refusal(self.base, response)
        if kind is type(None):
            return None
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_this_api(self.base, response) from error

    def project(self, reference: str | None) -> Project:
        """The project that `--project` names (slug, name or id), else the active one.

        Raises:
            Failure: none is active, none fits, or several have this name.
        """
        if reference is not None:
            return self.find_project(reference)
        active = project_config()
        if active is None:
            raise Failure("no active project: run `voicethere projects use NAME`, or pass --project.")
        return self.get(f"/projects/{path_part(active.project_id)}", Project)

    def find_project(self, reference: str) -> Project:
        """By id, else by slug, else by name.

        Raises:
            Failure: none fits, or several have this name.
        """
        projects = self.get("/projects", ProjectList).projects
        for candidate in projects:
            if reference in (candidate.id, candidate.slug):
                return candidate
        named = [candidate for candidate in projects if candidate.name == reference]
        if len(named) == 1:
            return named[0]
        if named:
            slugs = ", ".join(candidate.slug for candidate in named)
            raise Failure(f"several projects are called '{reference}': use a slug ({slugs}).")
        raise Failure(f"there is no project '{reference}'; `voicethere projects list` shows what there is.")


def path_part(value: str) -> str:
    """One segment of a path, whatever is in it."""
    return quote(value, safe="") or "-"


def _header_safe(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Failure("the key has characters that no key has: check VOICETHERE_API_KEY or log in again.")
    return key


def _refusal(base: str, response: httpx.Response) -> Failure:
    try:
        error = msgspec.json.decode(response.content, type=HttpErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _not_this_api(base, response)
    message = error.message
    if response.status_code == 401:
        message = f"{message} Run `voicethere login`, or check VOICETHERE_API_KEY."
    if response.status_code >= 500:
        message = f"{message} (request id {error.request_id})"
    return Refused(message, response.status_code)


def _not_this_api(base: str, response: httpx.Response) -> Failure:
    got = response.headers.get("content-type", "nothing").partition(";")[0]
    return Failure(
        f"{base} answered {response.status_code} with {got} that is not VoiceThere's: is the address right?"
    )
