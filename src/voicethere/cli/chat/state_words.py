"""Connection, stream, model, usage and turn of a conversation as short pieces for one-line displays. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from voicethere.chat import selectors
from voicethere.cli.chat.shown import shown_line
from voicethere.core.chat.state import ChatState, ConnectionStatus, TurnStats

_CONNECTION = {
    ConnectionStatus.IDLE: "○ not connected",
    ConnectionStatus.CONNECTING: "◌ connecting …",
    ConnectionStatus.CONNECTED: "● connected",
    ConnectionStatus.CLOSED: "○ closed",
    ConnectionStatus.ERROR: "✗ connection failed",
}


def connection_words(state: ChatState, conv_id: str) -> str:
    """The socket's state, told by sign and word: no colour is needed."""
    return _CONNECTION[selectors.select_connection_status(state, conv_id)]


def usage_pieces(state: ChatState, conv_id: str) -> list[str]:
    """What is known of the running stream, the model, the last turn and the totals, most wanted first."""
    pieces = []
    if selectors.select_is_streaming(state, conv_id):
        tokens = selectors.select_stream_output_tokens(state, conv_id)
        pieces.append(f"replying … {tokens:,} tok" if tokens else "replying …")
    model = selectors.select_model_name(state, conv_id)
    if model:
        pieces.append(shown_line(model, 40))
    stats = selectors.select_current_turn_stats(state, conv_id)
    if stats is not None:
        pieces += _turn(stats)
    total = selectors.select_conversation_total_tokens(state, conv_id)
    if total:
        cached = selectors.select_conversation_cached_tokens(state, conv_id)
        pieces.append(f"total {total:,} tok" + (f" ({cached:,} cached)" if cached else ""))
    return pieces


def _turn(stats: TurnStats) -> list[str]:
    pieces = []
    if stats.input_tokens is not None or stats.output_tokens is not None:
        pieces.append(f"{stats.input_tokens or 0:,} in/{stats.output_tokens or 0:,} out")
    if stats.duration_ms is not None:
        pieces.append(f"{stats.duration_ms / 1000:,.1f} s")
    if stats.tokens_per_second is not None:
        pieces.append(f"{stats.tokens_per_second:,.1f} tok/s")
    return pieces


def fitting(pieces: Sequence[str], width: int, separator: str = " · ") -> str:
    """As many pieces as fit one line of `width` columns, from the first on; what does not fit is left out."""
    line = ""
    for piece in pieces:
        longer = f"{line}{separator}{piece}" if line else piece
        if cell_len(longer) <= width:
            line = longer
    return line
