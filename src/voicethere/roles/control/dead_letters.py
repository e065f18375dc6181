"""Routes: dead letters, the items of the queue that could not be stored as what they are.

They belong to no project (nobody can read of which they are), so only the platform's operator sees them.
A replay puts the item on the queue again; what fails once more comes back as a new letter.
"""

from __future__ import annotations

import base64
import unicodedata
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET

from voicethere.adapters.http.auth import Principal
from voicethere.adapters.http.errors import conflict, error_responses, not_found
from voicethere.adapters.store.records import DeadLetter
from voicethere.roles.control.access import FOR_OPERATORS, require_operator
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.queueing import put_on_queue
from voicethere.roles.control.session_errors import Limit
from voicethere.wire.control_plane import (
    DeadLetterList,
    DeadLetterSummary,
    DeadLetterView,
    ReplayAccepted,
    ReplayDeadLetter,
)
from voicethere.wire.queue import QueueItem, decode

PREVIEW_CHARS = 200

_MAX_NUMBER = 2**63 - 1  # what both databases take
_MAX_ITEM_BYTES = 256 * 1024
_UNSHOWN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

Before = Annotated[int | None, QueryParameter(ge=1, le=_MAX_NUMBER)]


class DeadLetterRoutes(Controller):
    path = "/dead-letters"
    tags = ("dead letters",)
    opt = FOR_OPERATORS

    @get(summary="The dead letters, newest first")
    async def list_dead_letters(
        self,
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
        limit: Limit = 20,
        before: Before = None,
    ) -> DeadLetterList:
        """`next_before` of an answer is the `before` for the older ones."""
        await require_operator(plane, principal)
        found = await plane.store.dead_letters(limit=limit + 1, before=before)
        shown = found[:limit]
        return DeadLetterList(
            dead_letters=[_summary(letter) for letter in shown],
            count=await plane.store.count_dead_letters(),
            next_before=shown[-1].number if len(found) > limit else UNSET,
        )

    @get("/{number:int}", summary="Show a dead letter")
    async def get_dead_letter(
        self,
        number: FromPath[int],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> DeadLetterView:
        """With what was kept of the item: `text`, or `base64` where it is no UTF-8."""
        await require_operator(plane, principal)
        return _view(await _letter(plane, number))

    @post(
        "/{number:int}/replay",
        summary="Put a dead letter on the queue again",
        status_code=202,
        request_max_body_size=_MAX_ITEM_BYTES,
        responses=error_responses(409, 413),
    )
    async def replay_dead_letter(
        self,
        number: FromPath[int],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
        data: JSONBody[ReplayDeadLetter | None] = None,
    ) -> ReplayAccepted:
        """As it is, or corrected with `{"item": {…}}`. The item is durable when this answers, and the letter
        is gone. A 409 says why it cannot be replayed as it is."""
        await require_operator(plane, principal)
        letter = await _letter(plane, number)
        item = _as_it_is(letter) if data is None or data.item is UNSET else data.item
        # First: the worker may bury the very same bytes again before the old letter is removed.
        await plane.store.set_dead_letter_aside(number)
        await put_on_queue(plane, item, "The letter is still there: replay it again")
        await plane.store.delete_dead_letter(number, only_set_aside=True)
        return ReplayAccepted(number=number)

    @delete("/{number:int}", summary="Throw a dead letter away")
    async def delete_dead_letter(
        self,
        number: FromPath[int],
        plane: NamedDependency[ControlPlane],
        principal: NamedDependency[Principal],
    ) -> None:
        """For good: what it held is lost."""
        await require_operator(plane, principal)
        if not _can_be(number) or not await plane.store.delete_dead_letter(number):
            raise not_found("dead letter")


def preview(data: bytes) -> str:
    """The beginning of `data` on one line: what no reader can see, or a terminal would obey, as escapes."""
    text = data[: PREVIEW_CHARS * 4].decode("utf-8", "backslashreplace")
    shown = "".join(_escaped(character) for character in text)
    return shown if len(shown) <= PREVIEW_CHARS else shown[: PREVIEW_CHARS - 1] + "…"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSHOWN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _can_be(number: int) -> bool:
    return 1 <= number <= _MAX_NUMBER


async def _letter(plane: ControlPlane, number: int) -> DeadLetter:
    letter = await plane.store.get_dead_letter(number) if _can_be(number) else None
    if letter is None:
        raise not_found("dead letter")
    return letter


def _summary(letter: DeadLetter) -> DeadLetterSummary:
    return DeadLetterSummary(
        number=letter.number,
        created_at=letter.created_at,
        size_bytes=letter.size_bytes,
        truncated=letter.truncated,
        problem=letter.problem,
        preview=preview(letter.data),
    )


def _view(letter: DeadLetter) -> DeadLetterView:
    view = DeadLetterView(
        number=letter.number,
        created_at=letter.created_at,
        size_bytes=letter.size_bytes,
        truncated=letter.truncated,
        problem=letter.problem,
    )
    try:
        return msgspec.structs.replace(view, text=letter.data.decode("utf-8"))
    except UnicodeDecodeError:
        return msgspec.structs.replace(view, base64=base64.b64encode(letter.data).decode("ascii"))


def _as_it_is(letter: DeadLetter) -> QueueItem:
    """Raises HttpProblem (409), with the reason, where the letter cannot be read as an item."""
    correct = 'Replay it corrected, with {"item": {…}}, or delete it.'
    if letter.truncated:
        kept = f"only the first {len(letter.data)} of its {letter.size_bytes} bytes were kept"
        raise conflict(f"The dead letter {letter.number} cannot be replayed as it is: {kept}. {correct}")
    try:
        return decode(letter.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise conflict(
            f"The dead letter {letter.number} is still no item of the queue: {error}. {correct}"
        ) from error
