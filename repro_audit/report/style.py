"""What the terminal format's parts share: signs, colours, and the grid of labelled rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from repro_audit.report import text
from repro_audit.report.model import Outcome, PromiseStatus, SourceStatus

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

LABEL_WIDTH = 8
_GAP = 2
"""Columns before a label, and behind it."""
WIDEST = 120
"""Lines longer than this are hard to read."""
NARROW = 60
"""Below this many columns, what else stands side by side is stacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalStyle:
    """The signs and the width that a terminal offers."""

    width: int = 80
    colour: bool = True
    unicode: bool = True

    @classmethod
    def of(cls, console: Console) -> TerminalStyle:
        """What `console` offers."""
        return cls(
            width=min(console.width, WIDEST),
            colour=console.color_system is not None and not console.no_color,
            unicode=not console.options.ascii_only,
        )

    @property
    def narrow(self) -> bool:
        """There is no room to put things side by side."""
        return self.width < NARROW

    @property
    def room(self) -> int:
        """The columns beside the labels of `rows`."""
        return max(self.width - LABEL_WIDTH - 2 * _GAP, 1)

    @property
    def good(self) -> str:
        """The sign of what holds."""
        return "✓" if self.unicode else "+"

    @property
    def bad(self) -> str:
        """The sign of what broke."""
        return "✗" if self.unicode else "x"

    @property
    def arrow(self) -> str:
        """The sign before the line that matters among several."""
        return "→" if self.unicode else ">"

    @property
    def gap(self) -> str:
        """The sign of what was left out."""
        return "…" if self.unicode else "..."

    def source_sign(self, status: SourceStatus) -> str:
        """The sign of a source's status."""
        signs = {
            SourceStatus.BROKE: self.bad,
            SourceStatus.HELD: self.good,
            SourceStatus.ERROR: "!",
        }
        return signs.get(status, "·" if self.unicode else "-")

    def verdict_sign(self, outcome: Outcome) -> str:
        """The sign of a verdict."""
        signs = {Outcome.REPRODUCIBLE: self.good, Outcome.INCONCLUSIVE: "?"}
        return signs.get(outcome, self.bad)

    def promise_sign(self, status: PromiseStatus) -> str:
        """The sign of a promise's status."""
        signs = {PromiseStatus.BROKE: self.bad, PromiseStatus.HELD: self.good}
        return signs.get(status, "?")


SOURCE_WORDS = {
    SourceStatus.BROKE: "differs",
    SourceStatus.ERROR: "error",
    SourceStatus.HELD: "same",
    SourceStatus.DELEGATED: "delegated",
    SourceStatus.NOT_EXERCISED: "not tried",
}
YARDSTICK_WORDS = {
    **SOURCE_WORDS,
    SourceStatus.BROKE: "unexpected",
    SourceStatus.HELD: "expected",
}
"""Of what should change the result, and so breaks no promise."""
PROMISE_WORDS = {
    PromiseStatus.BROKE: "broken",
    PromiseStatus.HELD: "held",
    PromiseStatus.UNKNOWN: "unknown",
}
SOURCE_STYLES = {
    SourceStatus.BROKE: "bold red",
    SourceStatus.ERROR: "yellow",
    SourceStatus.HELD: "green",
    SourceStatus.DELEGATED: "cyan",
    SourceStatus.NOT_EXERCISED: "dim",
}
PROMISE_STYLES = {
    PromiseStatus.BROKE: "bold red",
    PromiseStatus.HELD: "green",
    PromiseStatus.UNKNOWN: "yellow",
}


def words(content: str, style: str = "") -> Text:
    """A safe line that folds instead of being cut."""
    return Text(text.line(content), style=style, overflow="fold")


def code(content: str, look: TerminalStyle) -> Text:
    """Python or a diff as it was written, in colours where there are any."""
    safe = text.block(content)
    if not look.colour:
        return Text(safe, overflow="fold")
    from rich.syntax import Syntax  # pygments, needed for a fix in colour only

    lexer = "diff" if content.startswith("--- ") else "python"
    highlighted = Syntax(safe, lexer, theme="ansi_dark", background_color="default").highlight(safe)
    highlighted.overflow = "fold"
    highlighted.no_wrap = False
    highlighted.rstrip()
    return highlighted


def rows(
    labelled: Iterable[tuple[str | Text, RenderableType]], *, width: int = LABEL_WIDTH
) -> RenderableType:
    """Rows of a label and its content, indented by two; the content wraps beside the label."""
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(min_width=width, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, content in labelled:
        grid.add_row(Text(label, style="dim") if isinstance(label, str) else label, content)
    return indented(grid, _GAP)


def labelled(
    label: str, contents: Iterable[RenderableType]
) -> Iterator[tuple[str, RenderableType]]:
    """Rows below one label, which stands before the first."""
    for index, content in enumerate(contents):
        yield label if index == 0 else "", content


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cropped:
    """The first lines of a text, with a sign at their end where there are more."""

    content: Text
    lines: int
    look: TerminalStyle

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        lines = self.content.wrap(console, options.max_width, overflow="fold")
        if len(lines) > self.lines:
            gap = self.look.gap
            last = lines[self.lines - 1]
            last.truncate(max(options.max_width - len(gap) - 1, 0))
            last.rstrip()
            last.append(f" {gap}")
        yield Text("\n").join(lines[: self.lines])


def indented(content: RenderableType, columns: int) -> RenderableType:
    """Content moved to the right."""
    return Padding(content, (0, 0, 0, columns), expand=False)


def whole_lines(content: Text, columns: int) -> Text:
    """Content moved to the right, none of its lines folded, however narrow the page: what is copied can be applied."""
    lines = (Text.assemble(" " * columns, line) for line in content.split("\n"))
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def heading(title: Text, look: TerminalStyle, style: str) -> RenderableType:
    """A line across the page with a title at its left end, or the title alone where it is long."""
    if title.cell_len + 2 > look.width:
        return title
    return Rule(title, align="left", style=style, characters="─" if look.unicode else "-")


def separated(parts: Iterable[RenderableType]) -> Iterator[RenderableType]:
    """Parts of a page with blank lines between them."""
    for index, part in enumerate(parts):
        if index:
            yield Text()
        yield part
