"""What was said, growing while it is said. Shows the newest entities of a timeline; knows no connection.

Only what changed is drawn again: the state shares what stayed the same, so identity tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from voicethere.chat import TimelineEntity
from voicethere.cli.chat.entity_words import EntityWords, entity_words
from voicethere.cli.chat.shown import shown_line, shown_text

MOST_SHOWN = 300
"""Entities on the screen. A timeline may have 100,000; a terminal that holds them all stands still."""
_STYLES = {"user": "bold $accent", "agent": "bold $success", "error": "bold $error", "note": "bold dim"}


class EntityView(Static):
    """One entity."""

    def __init__(self, entity: TimelineEntity) -> None:
        self.entity = entity
        words = entity_words(entity)
        super().__init__(_content(words), markup=False, classes=f"entity -{words.look}")

    def show(self, entity: TimelineEntity) -> None:
        """The same entity as it is now."""
        if entity is self.entity:
            return
        self.entity = entity
        words = entity_words(entity)
        self.set_classes(f"entity -{words.look}")
        self.update(_content(words))


class Transcript(VerticalScroll, can_focus=True):
    """The timeline: it follows what comes until the reader scrolls up, and again from the end on."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._views: dict[str, EntityView] = {}
        self._following = True
        self._earlier = Static(markup=False, classes="earlier")
        self._empty = Static("Nothing has been said yet. Write a message below.", classes="earlier")
        self._thinking = Static("agent: thinking …", markup=False, classes="thinking")

    def on_mount(self) -> None:
        """Nothing has been said yet."""
        self._earlier.display = self._thinking.display = False
        self.mount(self._earlier, self._empty, self._thinking)

    def show(self, entities: Sequence[TimelineEntity], *, thinking: bool) -> None:
        """Show the newest of `entities` (without suggestions), and whether an answer is waited for."""
        shown = entities[-MOST_SHOWN:]
        self._empty.display = not shown and not thinking
        self._earlier.display = len(shown) < len(entities)
        if self._earlier.display:
            self._earlier.update(f"({len(entities) - len(shown):,} earlier entries are not shown)")
        self._thinking.display = thinking
        self._drop_those_before(shown)
        known = list(self._views)
        if known != [entity.id for entity in shown[: len(known)]]:
            # A snapshot has put things in another order, or has taken some away.
            for view in self._views.values():
                view.remove()
            self._views = {}
            known = []
        for view, entity in zip(self._views.values(), shown, strict=False):
            view.show(entity)
        new = {entity.id: EntityView(entity) for entity in shown[len(known) :]}
        if new:
            self._views.update(new)
            self.mount(*new.values(), before=self._thinking)
        self._follow()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._following = True
        self._follow()

    def on_resize(self) -> None:
        """Other lines fit now; the end stays the end."""
        self._follow()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The reader went up, or has come back to the end."""
        super().watch_scroll_y(old_value, new_value)
        self._following = new_value >= self.max_scroll_y

    def _follow(self) -> None:
        if self._following:
            # Where the end is, is known when what is new has been laid out.
            self.call_after_refresh(self.scroll_end, animate=False)

    def _drop_those_before(self, shown: Sequence[TimelineEntity]) -> None:
        first = shown[0].id if shown else None
        if first not in self._views:
            return
        while (oldest := next(iter(self._views))) != first:
            self._views.pop(oldest).remove()


def _content(words: EntityWords) -> Content:
    text = shown_text(words.text)
    return Content.assemble(
        (f"{shown_line(words.label, 30)}: ", _STYLES[words.look]),
        (text, "dim" if words.look == "note" else ""),
        " ▌" if words.open else "",
    )
