"""Request bodies: JSON decoded strictly, and an oversized body that still gets its answer.

The framework would coerce (`"5"` to 5, `1` to true) and drop msgspec's words; a hostile or careless
client must be told instead.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator
from typing import Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO, DTOConfig
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from litestar.typing import FieldDefinition

from voicethere.adapters.http.errors import HttpProblem
from voicethere.wire.http import HttpErrorCode

T = TypeVar("T")


@functools.lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


class StrictJson(AbstractDTO[T]):
    """The app's `dto`: decodes the body as the type of a handler's `data`, without coercion.

    Raises:
        HttpProblem: 415 for another media type, 400 for what is no JSON.
        msgspec.ValidationError: JSON of a wrong shape (the app's handlers make it a 422).
    """

    config = DTOConfig()

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing to generate: msgspec is the codec."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Any:
        return schema_creator.for_field_definition(field_definition)

    def decode_bytes(self, value: bytes) -> Any:
        connection = self.asgi_connection
        media_type = (
            connection.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        )
        if media_type != "application/json" and not media_type.endswith("+json"):
            raise HttpProblem(
                415,
                HttpErrorCode.UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON (`Content-Type: application/json`).",
            )
        field = connection.route_handler.parsed_data_field
        return decode_json(value, Any if field is None else field.annotation)


def decode_json(value: bytes, kind: Any) -> Any:
    """`value` as `kind`, strictly; for handlers that read a raw body.

    Raises:
        HttpProblem: 400, the body is no JSON.
        msgspec.ValidationError: JSON of a wrong shape.
    """
    try:
        return _decoder(kind).decode(value)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpProblem(400, HttpErrorCode.BAD_REQUEST, f"The body is no valid JSON: {error}") from error
    except RecursionError as error:
        raise HttpProblem(400, HttpErrorCode.BAD_REQUEST, "The body is nested too deeply.") from error


class AnswerOversizedBodies:
    """ASGI middleware: reads on, for a bounded while, before a 413 goes out.

    A server that closes a socket with unread bytes in it resets the connection, and the client never sees
    the 413 that would have told it what was wrong.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int = 64 * 1024 * 1024, seconds: float = 10.0) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        more_body = True

        async def watched_receive() -> Any:
            nonlocal more_body
            message = await receive()
            more_body = bool(message.get("more_body")) if message["type"] == "http.request" else False
            return message

        async def patient_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 413:
                try:
                    async with asyncio.timeout(self._seconds):
                        read = 0
                        while more_body and read < self._most_bytes:
                            read += len((await watched_receive()).get("body", b""))
                except TimeoutError:
                    pass  # the client is slow: it gets its answer now, or a reset
            await send(message)

        await self._app(scope, watched_receive, patient_send)
