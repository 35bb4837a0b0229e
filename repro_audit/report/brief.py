"""The terminal format's short form of a finding: what, where, how much and what to write, in eight lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from rich.text import Text

from repro_audit.report import text
from repro_audit.report.causes import growth, op_in_words
from repro_audit.report.findings import (
    LOOK_THERE,
    PINNED_RUNS_DIFFER,
    hidden_by_the_loss,
    how_much,
    place,
    source_title,
    unexplained_title,
)
from repro_audit.report.model import Cause, Divergence, SourceResult
from repro_audit.report.style import Cropped, TerminalStyle, code, heading, indented, rows, words

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType


MOST_LINES = 8
"""Of a finding at 80 columns; on a narrower page, as many as hold the same."""


_LABEL_WIDTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    label: str
    content: Text
    least: int | None = None
    """Lines that it has at least; None for all of its lines."""
    turn: int = 0
    """Rows that have fewer than all of their lines get the rest where it fits, those of a lower turn first."""


def broken_source(source: SourceResult, look: TerminalStyle) -> RenderableType:
    """The short form of a source that broke."""
    return _Block(
        title=source_title(source, look),
        what=words(source.title),
        rows=tuple(_source_rows(source, look)),
        look=look,
    )


def unexplained(divergence: Divergence, look: TerminalStyle) -> RenderableType:
    """The short form of a difference that no source accounts for."""
    rows = list(_divergence_rows(divergence, look))
    if divergence.cause is None:
        rows.append(_Row(label="next", content=words(LOOK_THERE)))
    return _Block(
        title=unexplained_title(look), what=words(PINNED_RUNS_DIFFER), rows=tuple(rows), look=look
    )


def _source_rows(source: SourceResult, look: TerminalStyle) -> Iterator[_Row]:
    if source.reason:
        yield _Row(label="found", content=words(source.reason), least=0, turn=3)
    if source.divergence is not None:
        yield from _divergence_rows(source.divergence, look)
    if source.losses is not None:
        gap = growth(*source.losses, look) or hidden_by_the_loss(*source.losses)
        if gap:
            yield _Row(label="loss", content=words(gap), least=0, turn=1)
    if source.fix is not None:
        yield _Row(label="fix", content=words(text.first_sentence(source.fix.summary), "bold"))


def _divergence_rows(divergence: Divergence, look: TerminalStyle) -> Iterator[_Row]:
    cause = divergence.cause
    if cause is not None:
        yield _Row(label="where", content=_where(cause, look), least=1, turn=2)
    elif divergence.no_cause:
        not_found = words(f"not found: {divergence.no_cause}", "yellow")
        yield _Row(label="where", content=not_found, least=1, turn=2)
    since = Text.assemble((place(divergence), "bold"), ": " if place(divergence) else "")
    since.append_text(words(how_much(divergence)))
    yield _Row(label="since", content=since, least=1, turn=2)


def _where(cause: Cause, look: TerminalStyle) -> Text:
    """`train.py:17  the line of code`, and how many other lines part the runs."""
    location = cause.location
    if location is None:
        return words(op_in_words(cause) or cause.what)
    others = {other.location.place for other in cause.also if other.location is not None}
    more = len(others - {location.place})
    at = text.line(f"{location.place} (and {more} more)" if more else location.place)
    line = code(text.line(location.code or ""), look)
    return Text.assemble((at, "bold"), "  ", line)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """A title, a sentence and rows, with so many lines of each as there is room for."""

    title: Text
    what: Text
    rows: tuple[_Row, ...]
    look: TerminalStyle

    def __rich_console__(
        self, console: Console, _options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        look = self.look
        room = max(MOST_LINES, math.ceil(MOST_LINES * 80 / look.width))
        title = Cropped(content=self.title, lines=2, look=look)
        is_long = self.title.cell_len + 2 > look.width
        what = _Row(label="", content=self.what)
        counts = _shared(
            room - (2 if is_long else 1),
            [
                (row, len(row.content.wrap(console, width, overflow="fold")))
                for width, row in (
                    (look.width - 2, what),
                    *((look.width - _LABEL_WIDTH - 4, row) for row in self.rows),
                )
            ],
        )
        yield title if is_long else heading(self.title, look, "red")
        yield indented(Cropped(content=self.what, lines=counts[0], look=look), 2)
        yield rows(
            (
                (row.label, Cropped(content=row.content, lines=count, look=look))
                for row, count in zip(self.rows, counts[1:], strict=True)
                if count
            ),
            width=_LABEL_WIDTH,
        )


def _shared(room: int, wanted: list[tuple[_Row, int]]) -> list[int]:
    """How many lines each row gets of those that it wants."""
    given = [wants if row.least is None else min(row.least, wants) for row, wants in wanted]
    while sum(given) > room:
        given[given.index(max(given))] -= 1
    for index, (row, wants) in sorted(enumerate(wanted), key=lambda each: each[1][0].turn):
        if row.turn and sum(given) - given[index] + wants <= room:
            given[index] = wants
    return given
