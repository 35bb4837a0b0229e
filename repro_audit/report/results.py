"""The terminal format's table of every source: what became of it, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from repro_audit.report import effect, findings, text
from repro_audit.report.model import SourceResult, SourceStatus, broken_promise
from repro_audit.report.style import (
    SOURCE_STYLES,
    SOURCE_WORDS,
    YARDSTICK_WORDS,
    TerminalStyle,
    indented,
    rows,
    words,
)
from repro_audit.source import Scope

_STATUS_WIDTH = len("✗ unexpected")
_FOLDED = (SourceStatus.HELD, SourceStatus.DELEGATED, SourceStatus.NOT_EXERCISED)


def table(sources: Sequence[SourceResult], look: TerminalStyle) -> RenderableType:
    """What broke or could not be tried, a row each; the others by their status and reason."""
    errors = [source for source in sources if source.status is SourceStatus.ERROR]
    singles = [*effect.findings(sources), *errors]
    parts = [_single_sources(singles, look)] if singles else []
    parts.append(rows(_fold_rows(sources, look), width=_STATUS_WIDTH))
    return Group(*parts)


def by_reason(
    sources: Sequence[SourceResult], status: SourceStatus
) -> dict[tuple[str, bool], list[SourceResult]]:
    """The sources with a status, by reason, and those that break no promise apart."""
    found: dict[tuple[str, bool], list[SourceResult]] = {}
    for source in sources:
        if source.status is status:
            found.setdefault((source.reason, source.scope is Scope.NONE), []).append(source)
    return found


def word(source: SourceResult) -> str:
    """What became of a source: `same`; of one that breaks no promise, `expected`."""
    return (YARDSTICK_WORDS if source.scope is Scope.NONE else SOURCE_WORDS)[source.status]


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
        grid.add_row(_status(source, look), *stacked)
    return indented(grid, 2)


def _status(source: SourceResult, look: TerminalStyle) -> Text:
    return Text(f"{look.source_sign(source.status)} {word(source)}", SOURCE_STYLES[source.status])


def _summary(source: SourceResult) -> str:
    if source.status is SourceStatus.BROKE and source.divergence is not None:
        return findings.place(source.divergence) or source.reason
    return source.reason


def _fold_rows(
    sources: Sequence[SourceResult], look: TerminalStyle
) -> Iterator[tuple[Text, RenderableType]]:
    for status in _FOLDED:
        previous = Text("")
        for same in by_reason(sources, status).values():
            first = same[0]
            label = _status(first, look)
            names = text.line(text.listed(source.id for source in same))
            because = words(f": {first.reason}" if first.reason else "")
            yield (
                label if label != previous else Text(""),
                Text.assemble((names, SOURCE_STYLES[status]), because, overflow="fold"),
            )
            previous = label
