"""What `llm.*` events do: streams start, go on and end; tokens, statistics and totals follow.

They never show text: `timeline.upsert` alone does (`entity_effects`).
"""

from __future__ import annotations

from voicethere.core.chat import actions, selectors
from voicethere.core.chat.sem_context import SemContext
from voicethere.core.chat.usage import LlmMetadata, read_metadata, stream_tokens, turn_stats
from voicethere.wire.sem import LlmDelta, LlmEnd, SemEvent


def start_stream(context: SemContext, stream_id: str) -> None:
    """The stream runs. Where it did not before, its tokens are zeroed and the current error is cleared."""
    if context.streams.start(stream_id):
        context.store.dispatch(actions.mark_stream_start(context.conv_id))
    _tell_whether_streaming(context)


def end_stream(context: SemContext, stream_id: str) -> None:
    """The stream has ended; the conversation streams for as long as any other runs."""
    context.streams.end(stream_id)
    _tell_whether_streaming(context)


def end_streams(context: SemContext) -> None:
    """No stream runs any more, as when the socket that carried them is lost."""
    context.streams.end_all()
    _tell_whether_streaming(context)


def stream_starts(context: SemContext, event: SemEvent) -> None:
    """`llm.start`, `llm.thinking.start`."""
    start_stream(context, event.id)
    _note_model(context, read_metadata(event.metadata))


def stream_goes_on(context: SemContext, event: SemEvent) -> None:
    """`llm.delta`, `llm.thinking.delta`: a stream that was not running starts."""
    start_stream(context, event.id)
    data: LlmDelta = event.data
    delta = data.delta if isinstance(data.delta, str) else ""
    grown = context.streams.grow(event.id, len(delta))
    chars = len(data.cumulative) if isinstance(data.cumulative, str) else grown
    metadata = read_metadata(event.metadata)
    _note_model(context, metadata)
    _note_tokens(context, metadata, chars)


def reply_ends(context: SemContext, event: SemEvent) -> None:
    """`llm.final`: as `summary_ends`, and the conversation's totals grow."""
    metadata = read_metadata(event.metadata)
    _end(context, event, metadata)
    if metadata is None or metadata.usage is None:
        return
    added = context.streams.report(event.id, metadata.usage)
    if added.input_tokens or added.output_tokens or added.cached_tokens:
        context.store.dispatch(
            actions.add_conversation_usage(
                context.conv_id,
                input_tokens=added.input_tokens or 0,
                output_tokens=added.output_tokens or 0,
                cached_tokens=added.cached_tokens or 0,
            )
        )


def summary_ends(context: SemContext, event: SemEvent) -> None:
    """`llm.thinking.summary`: the stream ends, and the turn's statistics are set."""
    _end(context, event, read_metadata(event.metadata))


def thinking_ends(context: SemContext, event: SemEvent) -> None:
    """`llm.thinking.final`: the stream ends."""
    _note_model(context, read_metadata(event.metadata))
    end_stream(context, event.id)


def _end(context: SemContext, event: SemEvent, metadata: LlmMetadata | None) -> None:
    data: LlmEnd = event.data
    chars = len(data.text) if isinstance(data.text, str) else context.streams.grow(event.id, 0)
    _note_model(context, metadata)
    _note_tokens(context, metadata, chars)
    stats = None if metadata is None else turn_stats(metadata)
    if stats is not None:
        context.store.dispatch(actions.set_turn_stats(context.conv_id, stats))
    end_stream(context, event.id)


def _tell_whether_streaming(context: SemContext) -> None:
    runs = bool(context.streams)
    if selectors.select_is_streaming(context.store.state, context.conv_id) is not runs:
        context.store.dispatch(actions.set_is_streaming(context.conv_id, runs))


def _note_model(context: SemContext, metadata: LlmMetadata | None) -> None:
    if metadata is not None and metadata.model is not None:
        context.store.dispatch(actions.set_model_name(context.conv_id, metadata.model))


def _note_tokens(context: SemContext, metadata: LlmMetadata | None, chars: int) -> None:
    if metadata is not None:
        tokens = stream_tokens(metadata, chars)
        context.store.dispatch(actions.update_stream_tokens(context.conv_id, tokens))
