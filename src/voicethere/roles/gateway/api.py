"""The chat gateway over HTTP: prompts, timelines, issued conversations (contract: sem-chat.md).

Knows routes, statuses and bodies; what they mean is the gateway's. Errors are made plain text around it
(`adapters.http.plain_errors`).
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.handlers import BaseRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from voicethere.adapters.http.cors import CorsPolicy
from voicethere.adapters.http.errors import HttpProblem, not_found
from voicethere.adapters.http.plain_errors import ERROR_CODE_HEADER, plain_error_responses
from voicethere.core.usage import UsageExceeded
from voicethere.roles.gateway.access import CHAT_PREFIX, Caller
from voicethere.roles.gateway.checks import conversation_id, customer_context, prompt_text
from voicethere.roles.gateway.gateway import Gateway, TooManyPrompts
from voicethere.wire.chat_api import IssuedConversation, PromptAccepted, SubmitPrompt
from voicethere.wire.http import HttpErrorCode
from voicethere.wire.sem import TimelineSnapshot

CHAT_CORS = CorsPolicy(
    path_prefixes=(CHAT_PREFIX,),
    methods=("GET", "POST"),
    exposed_headers=("x-request-id", "Retry-After", ERROR_CODE_HEADER),
)
"""For the app that serves these routes: pages of any origin may ask; a project may say which are answered."""

PLAIN_ERRORS_UNDER = (CHAT_PREFIX,)
PROMPT_BODY_LIMIT = 256 * 1024
"""Bytes: enough for the longest prompt, with every character escaped."""

_CALLER = "voicethere_chat_caller"
_REFUSALS = (400, 401, 403, 404, 422, 500, 503)

ConvId = Annotated[str | None, QueryParameter(name="conv_id")]


def chat_router(gateway: Gateway) -> Router:
    """The routes below `/c/{base}`; the socket is `sockets.chat_sockets`."""

    @post(
        "/chat",
        operation_id="submitPrompt",
        summary="Submit a user's prompt",
        status_code=202,
        request_max_body_size=PROMPT_BODY_LIMIT,
        responses=plain_error_responses(*_REFUSALS, 413, 415, 429),
    )
    async def submit_prompt(
        base: FromPath[str], data: JSONBody[SubmitPrompt], caller: NamedDependency[Caller]
    ) -> PromptAccepted:
        """Accepted once it is stored; the answer comes over the socket, and into the timeline.

        The first prompt of a conversation starts its session. sem-chat: "POST {base}/chat with
        {"prompt", "conv_id"} submits a user's prompt. 2xx accepted".
        """
        conv_id = await _conversation(gateway, caller, data.conv_id)
        text = prompt_text(data.prompt)
        try:
            version = await gateway.submit(caller, conv_id, text, customer_context(data))
        except UsageExceeded as used_up:
            raise HttpProblem(
                429,
                HttpErrorCode.MONTHLY_USAGE_EXCEEDED,
                f"This agent has had its {used_up.limit} sessions of this month: come back next month.",
                headers={"Retry-After": str(used_up.retry_after_seconds)},
            ) from used_up
        except TooManyPrompts as waiting:
            raise HttpProblem(
                429,
                HttpErrorCode.RATE_LIMITED,
                "Too many messages of this conversation still wait for an answer: try again in a moment.",
                headers={"Retry-After": "1"},
            ) from waiting
        except LookupError as gone:
            raise not_found("project") from gone  # it was deleted a moment ago
        return PromptAccepted(conv_id=conv_id, version=version)

    @get(
        "/api/timeline",
        operation_id="getTimeline",
        summary="Get the timeline of a conversation",
        responses={
            200: ResponseSpec(
                TimelineSnapshot, description="The snapshot, as of `version`.", generate_examples=False
            ),
            **plain_error_responses(*_REFUSALS),
        },
    )
    async def timeline(
        base: FromPath[str], caller: NamedDependency[Caller], conv_id: ConvId = None
    ) -> Response[bytes]:
        """sem-chat: "for an unknown one the timeline is 200 and empty"."""
        known = await _conversation(gateway, caller, conv_id)
        return Response(
            await gateway.timeline(caller.project_id, known), media_type="application/json", status_code=200
        )

    @post(
        "/conversations",
        operation_id="issueConversation",
        summary="Issue a conversation id",
        responses=plain_error_responses(*_REFUSALS),
    )
    async def issue(base: FromPath[str], caller: NamedDependency[Caller]) -> IssuedConversation:
        """A fresh, random id: knowing it is what lets a client read the conversation.

        sem-chat: "ours are random (128 bits), and a project can require ids that the gateway issued".
        """
        try:
            return await gateway.issue(caller.project_id)
        except LookupError as gone:
            raise not_found("project") from gone

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        # Before the body is read: a stranger cannot make the server read one.
        base = str(connection.path_params.get("base", ""))
        connection.scope["state"][_CALLER] = await gateway.access.admit(connection, base)

    async def caller(request: Request[Any, Any, Any]) -> Caller:
        found: Caller = request.scope["state"][_CALLER]
        return found

    return Router(
        "/c/{base:str}",
        route_handlers=[submit_prompt, timeline, issue],
        guards=[guard],
        dependencies={"caller": Provide(caller)},
        tags=["chat"],
    )


async def _conversation(gateway: Gateway, caller: Caller, conv_id: str | None) -> str:
    """The conversation's id. Raises HttpProblem: 422, or 404 for one that had to be issued and was not."""
    known = conversation_id(conv_id)
    if caller.issued_only and not await gateway.is_issued(caller.project_id, known):
        raise not_found("conversation")
    return known
