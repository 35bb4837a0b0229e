"""The terminal format's table of every source: what became of it, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from repro_audit.report import effect, findings, text
from repro_audit.report.model import SourceResult, SourceStatus, broken_promise
from repro_audit.report.style import (
    SOURCE_STYLES,
    SOURCE_WORDS,
    TerminalStyle,
    indented,
    rows,
    words,
)
from repro_audit.source import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

_STATUS_WIDTH = 11
_FOLDED = (SourceStatus.HELD, SourceStatus.DELEGATED, SourceStatus.NOT_EXERCISED)


def table(sources: Sequence[SourceResult], look: TerminalStyle) -> RenderableType:
    """What broke or could not be tried, a row each; the others by their status and reason."""
    errors = [source for source in sources if source.status is SourceStatus.ERROR]
    singles = [*effect.findings(sources), *errors]
    parts = [_single_sources(singles, look)] if singles else []
    parts.append(rows(_fold_rows(sources, look), width=_STATUS_WIDTH))
    return Group(*parts)


def by_reason(sources: Sequence[SourceResult], status: SourceStatus) -> dict[str, list[str]]:
    """The ids of the sources with a status, by reason."""
    found: dict[str, list[str]] = {}
    for source in sources:
        if source.status is status:
            found.setdefault(source.reason, []).append(source.id)
    return found


def _single_sources(sources: list[SourceResult], look: TerminalStyle) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=_STATUS_WIDTH, no_wrap=True)
    for _ in range(1 if look.narrow else 3):
        grid.add_column(overflow="fold")
    for source in sources:
        promise = broken_promise(source, sources)
        scope = "" if promise is Scope.NONE else promise.value
        cells = [words(source.id, "bold"), words(scope), words(_summary(source))]
        stacked = [Text("\n").join(c for c in cells if c)] if look.narrow else cells
        grid.add_row(_status(source.status, look), *stacked)
    return indented(grid, 2)


def _status(status: SourceStatus, look: TerminalStyle) -> Text:
    return Text(f"{look.source_sign(status)} {SOURCE_WORDS[status]}", SOURCE_STYLES[status])


def _summary(source: SourceResult) -> str:
    if source.status is SourceStatus.BROKE and source.divergence is not None:
        return findings.place(source.divergence) or source.reason
    return source.reason


def _fold_rows(
    sources: Sequence[SourceResult], look: TerminalStyle
) -> Iterator[tuple[Text, RenderableType]]:
    for status in _FOLDED:
        label = _status(status, look)
        for reason, ids in by_reason(sources, status).items():
            because = words(f": {reason}" if reason else "")
            names = (text.line(text.listed(ids)), SOURCE_STYLES[status])
            yield label, Text.assemble(names, because, overflow="fold")
            label = Text("")
