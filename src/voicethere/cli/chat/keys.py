"""The keys of the terminal client, each named once: what is bound, and how the screens write it.

Control keys rather than function keys: they get through SSH, screen, tmux and phone keyboards. None of these
is a prefix key of screen or tmux, and none is what flow control, backspace, tab or enter send.
"""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """`binding` is what Textual binds (alternatives with commas), `shown` how people read it."""

    binding: str
    shown: str
    short: str
    help: str


SEND = Key("enter", "Enter", "send", "Send what you have written.")
NEW_LINE = Key("ctrl+j", "^J", "new line", "Begin a new line in your message.")
RETRY = Key("ctrl+r", "^R", "retry", "Try again what failed, where trying again may help.")
CLEAR = Key("ctrl+l", "^L", "clear", "Clear the error. It stays in the history.")
RECONNECT = Key("ctrl+o", "^O", "reconnect", "Close the connection and open it again.")
ERRORS = Key("ctrl+t,f3", "^T", "errors", "The errors of this conversation, with what to do about each.")
DEBUG = Key("ctrl+g,f2", "^G", "debug", "What goes on underneath: frames, connection, errors.")
SUGGESTION = Key("ctrl+n", "^N", "suggestion", "Put the next suggestion into your message.")
UP = Key("pageup", "PgUp", "up", "Read what was said before.")
DOWN = Key("pagedown", "PgDn", "down", "Read on; at the end the transcript follows again.")
HELP = Key("f1,ctrl+s", "F1", "keys", "This page (^S too).")
QUIT = Key("ctrl+q", "^Q", "quit", "Leave. The conversation stays; its id brings you back.")

CONVERSATION = (SEND, NEW_LINE, RETRY, CLEAR, RECONNECT, ERRORS, DEBUG, SUGGESTION, UP, DOWN, HELP, QUIT)
"""All keys of the conversation, in the order of the help page."""

BACK = Key("escape,q", "Esc", "back", "Back to the conversation.")
OPEN = Key("enter", "Enter", "detail", "Everything about the selected line.")
PAUSE = Key("p,space", "P", "pause", "Stop the list; what comes is kept, and shown when it goes on.")
EXPORT_TEXT = Key("t", "T", "text", "Write all entries to a file, as text.")
EXPORT_YAML = Key("y", "Y", "YAML", "Write all entries to a file, as YAML.")
FAMILIES = Key("1,2,3,4,5,6,7,8,9", "1-9", "family", "Hide or show the family with this digit.")
ALL_FAMILIES = Key("a", "A", "all", "Show all families again.")
FORGET = Key("x", "X", "forget", "Forget the entries so far.")
