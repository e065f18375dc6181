"""Whether a window still waits for an answer: what its user has said, and whether anyone has spoken since.

Knows the order in which entities arrived; not how the socket is, nor what a window draws.
"""

from __future__ import annotations

from bisect import bisect_left

from voicethere.core.chat.state import ConversationTimeline, WindowState


def begins_at(timeline: ConversationTimeline) -> int:
    """The arrival number from which a window that begins to wait now looks for its user's message.

    That is the next one, or the newest entity's where it is the user's: a client may show the message first.
    """
    of_user = timeline.arrivals_of_user
    if of_user and of_user[-1] > timeline.newest_of_others:
        return of_user[-1]
    return timeline.arrivals


def users_message(timeline: ConversationTimeline, window: WindowState) -> int | None:
    """The arrival number of the message that the window waits for an answer to; None before there is one."""
    if window.awaiting is None:
        return None
    of_user = timeline.arrivals_of_user
    place = bisect_left(of_user, window.awaiting)
    return of_user[place] if place < len(of_user) else None


def is_unanswered(timeline: ConversationTimeline, window: WindowState) -> bool:
    """Whether the window waits, and nobody but the user has said anything since.

    Since the user's message; before that is in the timeline, since the window began to wait.
    """
    # Fewer arrivals than then: the conversation was cleared since.
    if window.awaiting is None or window.awaiting > timeline.arrivals:
        return False
    message = users_message(timeline, window)
    return timeline.newest_of_others < (window.awaiting if message is None else message)
