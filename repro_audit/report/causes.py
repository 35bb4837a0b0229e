"""The terminal format's rows about a cause: the line, how the runs part there, and the way from it to the loss."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from repro_audit.report import text
from repro_audit.report.drift import grid, in_words
from repro_audit.report.effect import gaps
from repro_audit.report.model import (
    Cause,
    Divergence,
    Drift,
    Excerpt,
    Link,
    Location,
    LossCurve,
    Size,
)
from repro_audit.report.style import TerminalStyle, code, indented, words

_MOST_LINKS = 8
_MOST_LAYERS = 12
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "12345678"
_FEWEST_BARS, _MOST_BARS = 8, 48


def cause_rows(divergence: Divergence, look: TerminalStyle) -> Iterator[tuple[str, RenderableType]]:
    """Where the runs part, and what else parts them."""
    cause = divergence.cause
    if cause is None:
        if divergence.no_cause:
            yield "cause", words(f"not found: {divergence.no_cause}", "yellow")
    else:
        yield "cause", _cause(cause, look, around=True)
        for number, other in enumerate(cause.also):
            yield "" if number else "also", _cause(other, look)
    if divergence.way:
        yield "way", _way(cause, divergence.way, look)


def size_in_words(size: Size) -> str:
    """How many elements differ, and by how much."""
    share = text.share(size.mismatched, size.numel)
    parts = [
        f"{size.mismatched:,} of {size.numel:,} elements ({share})",
        f"max abs {text.number(size.max_abs)}",
    ]
    if size.max_ulp is not None:
        parts.append(f"max ulp {size.max_ulp:,}")
    if size.first_index:
        parts.append(f"first at {list(size.first_index)}")
    return text.listed(parts)


def _cause(cause: Cause, look: TerminalStyle, *, around: bool = False) -> RenderableType:
    """The line first, as that is what to open, with those `around` it; then what happens there."""
    parts: list[RenderableType] = []
    location = cause.location
    if location is not None:
        parts.append(words(_line(location), "bold"))
        if location.excerpt is not None and around:
            parts.append(indented(_excerpt(location.excerpt, location.line, look), 2))
        elif location.code:
            parts.append(indented(code(text.line(location.code), look), 4))
    if op := op_in_words(cause):
        parts.append(words(op))
    parts.append(words(cause.what))
    if cause.size is not None:
        parts.append(words(f"its output: {size_in_words(cause.size)}"))
    parts += [words(line) for line in cause.evidence]
    return Group(*parts)


def _excerpt(found: Excerpt, named: int, look: TerminalStyle) -> RenderableType:
    """The lines with their numbers, an arrow before the one that is named."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    shown = [text.line(line.expandtabs(4).rstrip()) for line in found.lines]
    for number, line in enumerate(textwrap.dedent("\n".join(shown)).split("\n"), found.first):
        sign = f"{look.arrow} " if number == named else ""
        style = "bold" if sign else "dim"
        table.add_row(Text(f"{sign}{number}", style=style), code(line, look))
    return table


def _line(location: Location) -> str:
    within = f" in {location.function}" if location.function else ""
    return f"{location.place}{within}"


def op_in_words(cause: Cause) -> str:
    """`aten::sum in backward of module encoder.layers.0, step 3`."""
    if not cause.op:
        return f"in module {cause.module}" if cause.module else ""
    of = f" of module {cause.module}" if cause.module else ""
    return f"{cause.op} in {cause.phase}{of}, step {cause.step}"


def _way(cause: Cause | None, way: tuple[Link, ...], look: TerminalStyle) -> Text:
    """A short tree: what the difference reached, from its cause to the loss."""
    branch = "└ " if look.unicode else "`- "
    lines: list[tuple[str, str]] = []
    if cause is not None and cause.location is not None:
        lines.append((cause.location.place, cause.op or ""))
    links = way if len(way) <= _MOST_LINKS else (*way[: _MOST_LINKS - 1], way[-1])
    for number, link in enumerate(links):
        depth = len(lines)
        indent = "  " * (depth - 1) + branch if depth else ""
        gap = f"{look.gap} " if len(links) < len(way) and number == len(links) - 1 else ""
        lines.append((f"{indent}{gap}{link.what}", link.where))
    width = max(len(text.line(what)) for what, _ in lines)
    shown = Text(overflow="fold")
    for number, (what, where) in enumerate(lines):
        if number:
            shown.append("\n")
        shown.append(text.line(what).ljust(width) if where and not look.narrow else text.line(what))
        if where:
            shown.append(f"  {text.line(where)}", style="dim")
    return shown


def drift_rows(drift: Drift, look: TerminalStyle) -> Iterator[Text]:
    """How far the parameters drift apart: in words, then a bar a step for each layer, one scale for all."""
    yield words(in_words(drift))
    bars = _BARS if look.unicode else _ASCII_BARS
    same = "·" if look.unicode else "."
    layers = grid(drift)
    width = max((len(text.line(layer.name)) for layer, _ in layers[:_MOST_LAYERS]), default=0)
    for layer, cells in layers[:_MOST_LAYERS]:
        shades = (cell.shade for cell in cells)
        drawn = ("?" if shade is None else bars[shade - 1] if shade else same for shade in shades)
        last = f"{cells[-1].said} after step {drift.steps[len(cells) - 1]}" if cells else ""
        yield words(f"{text.line(layer.name).ljust(width)}  {''.join(drawn)}  {last}")
    more = len(layers) - _MOST_LAYERS
    if more > 0:
        yield words(f"{look.gap} {text.plural(more, 'further layer')}", "dim")


def growth(a: LossCurve, b: LossCurve, look: TerminalStyle) -> str:
    """How the difference of two losses goes on, a bar a step on a logarithmic scale; empty where there is none.

    Steps at which both losses are the same have a dot. Of many steps, evenly many are shown, so that it is one line.
    """
    differences = gaps(a, b)
    sizes = [gap for gap in differences if gap > 0 and math.isfinite(gap)]
    if not sizes or len(differences) < 2:  # noqa: PLR2004  # one step grows nothing
        return ""
    bars = _BARS if look.unicode else _ASCII_BARS
    low, high = math.log(min(sizes)), math.log(max(sizes))
    span = (high - low) or 1.0

    def bar(gap: float) -> str:
        if gap == 0:
            return "." if not look.unicode else "·"
        if not math.isfinite(gap):
            return "!"
        return bars[round((math.log(gap) - low) / span * (len(bars) - 1))]

    first = next(step for step, gap in enumerate(differences) if gap != 0)
    last = len(differences) - 1
    end = text.number(differences[last]) if differences[last] != 0 else "the same"
    ends = f"differs by {text.number(differences[first])} at step {first}"
    if last > first:
        ends += f", {end} at step {last}"
    room = min(max(look.room - len(ends) - 2, _FEWEST_BARS), _MOST_BARS)
    count = min(len(differences), room)
    shown = "".join(bar(differences[step * len(differences) // count]) for step in range(count))
    return f"{shown}  {ends}"
