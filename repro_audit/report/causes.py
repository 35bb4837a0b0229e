"""The terminal format's rows about a cause: the line, how the runs part there, and the way from it to the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from repro_audit.report import text
from repro_audit.report.look import Look, code, indented, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from repro_audit.report.model import Cause, Divergence, Link, Location, Size

_MOST_LINKS = 8


def cause_rows(divergence: Divergence, look: Look) -> Iterator[tuple[str, RenderableType]]:
    """Where the runs part, and what else parts them."""
    cause = divergence.cause
    if cause is None:
        if divergence.no_cause:
            yield "cause", words(f"not found: {divergence.no_cause}", "yellow")
    else:
        yield "cause", _cause(cause, look)
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


def _cause(cause: Cause, look: Look) -> RenderableType:
    """The line first, as that is what to open; then what happens there."""
    parts: list[RenderableType] = []
    location = cause.location
    if location is not None:
        parts.append(words(_line(location), "bold"))
        if location.code:
            parts.append(indented(code(text.line(location.code), look), 4))
    if op := _op(cause):
        parts.append(words(op))
    parts.append(words(cause.what))
    if cause.size is not None:
        parts.append(words(f"its output: {size_in_words(cause.size)}"))
    parts += [words(line) for line in cause.evidence]
    return Group(*parts)


def _line(location: Location) -> str:
    within = f" in {location.function}" if location.function else ""
    return f"{location.file}:{location.line}{within}"


def _op(cause: Cause) -> str:
    """`aten::sum in backward of module encoder.layers.0, step 3`."""
    if not cause.op:
        return f"in module {cause.module}" if cause.module else ""
    of = f" of module {cause.module}" if cause.module else ""
    return f"{cause.op} in {cause.phase}{of}, step {cause.step}"


def _way(cause: Cause | None, way: tuple[Link, ...], look: Look) -> Text:
    """A short tree: what the difference reached, from its cause to the loss."""
    branch = "└ " if look.unicode else "`- "
    lines: list[tuple[str, str]] = []
    if cause is not None and cause.location is not None:
        lines.append((f"{cause.location.file}:{cause.location.line}", cause.op or ""))
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
