"""The catalogue as a table, two lines a source: what is varied, and what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from repro_audit.report.style import TerminalStyle, indented, words
from repro_audit.report.terminal import print_whole
from repro_audit.source import Scope, Source
from repro_audit.sources._exercise import Answer, Prospect, prospect, this_machine
from repro_audit.sources._plugins import Plugins

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


HERE_WIDTH = 22
SCOPE_WIDTH = 8
LEAST_ROOM = 20
"""Of the levels, in columns."""


def print_catalogue(catalogue: Mapping[str, Source], plugins: Plugins, console: Console) -> None:
    """Print every source, and the plugins that can not be used."""
    look = TerminalStyle.of(console)
    print_whole(_parts(catalogue, plugins, look), console, look)


def _parts(
    catalogue: Mapping[str, Source], plugins: Plugins, look: TerminalStyle
) -> Iterator[RenderableType]:
    width = max(map(len, catalogue))
    headings = ("id", "breaks", "levels: pinned / varied", "can be tried here")
    yield _row([Text(heading, "dim") for heading in headings], width, look)
    here = this_machine()
    for name, source in catalogue.items():
        expected = prospect(source, here)
        yield _row(
            [
                Text(name, "bold"),
                Text("-" if source.scope is Scope.NONE else source.scope.value),
                words(_levels(source, expected)),
                _here(expected),
            ],
            width,
            look,
        )
        origin = f" (plugin {plugins.places[name]})" if name in plugins.places else ""
        yield indented(words(f"{source.title}{origin}", "dim"), 2)
    for note in plugins.notes:
        yield words(f"note: {note}", "yellow")


def _row(cells: list[Text], width: int, look: TerminalStyle) -> RenderableType:
    """One line; cells below one another where the terminal is narrow."""
    room = look.width - width - SCOPE_WIDTH - HERE_WIDTH - 3 * 2
    if look.narrow or room < LEAST_ROOM:
        return Text("\n").join(cells)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width, overflow="fold")
    grid.add_column(width=SCOPE_WIDTH)
    grid.add_column(width=room, overflow="fold")
    grid.add_column(width=HERE_WIDTH, overflow="fold")
    grid.add_row(*cells)
    return grid


def _levels(source: Source, expected: Prospect) -> str:
    return f"{source.pinned} / {'; '.join(expected.varied) or 'by program'}"


def _here(expected: Prospect) -> Text:
    if expected.answer is Answer.NO:
        return words(expected.in_short, "yellow")
    return Text(expected.answer.value, "green" if expected.answer is Answer.YES else "")
