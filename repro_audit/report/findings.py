"""The terminal format's section about one thing that broke: where, how much, what to write."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from repro_audit.report import text
from repro_audit.report.causes import cause_rows, drift_rows, growth, size_in_words
from repro_audit.report.model import (
    RECORD,
    Confidence,
    Divergence,
    DivergenceKind,
    Fix,
    LevelResult,
    LossCurve,
    SourceResult,
)
from repro_audit.report.style import (
    TerminalStyle,
    code,
    heading,
    labelled,
    rows,
    whole_lines,
    words,
)
from repro_audit.source import Scope
from repro_audit.storage.facts import of_rank

UNEXPLAINED = "unexplained"
"""Stands for the id of a source where no source accounts for a difference."""
PINNED_RUNS_DIFFER = "two runs with everything pinned differ, and no source accounts for it"
LOOK_THERE = "look for what the first line that differs depends on beside its inputs"
_SHOWN_LOSSES = 8
_KINDS = {
    DivergenceKind.VALUE: "values differ",
    DivergenceKind.ORDER: "another order",
    DivergenceKind.STRUCTURE: "another structure",
    DivergenceKind.NAN_OR_SIGNED_ZERO: "only NaN payloads or signs of zero differ",
}


def broken_source(source: SourceResult, look: TerminalStyle) -> RenderableType:
    """The section of a source that broke."""
    title = source_title(source, look)
    parts: list[RenderableType] = [heading(title, look, "red"), rows(_source_rows(source, look))]
    if source.fix is not None:
        parts.append(_fix(source.fix, look))
    return Group(*parts)


def unexplained(divergence: Divergence, look: TerminalStyle) -> RenderableType:
    """The section of a difference that no source accounts for."""
    content: list[tuple[str, RenderableType]] = [("what", words(PINNED_RUNS_DIFFER))]
    content += _divergence_rows(divergence, look)
    if divergence.drift is not None:
        content += labelled("layers", drift_rows(divergence.drift, look))
    if divergence.cause is None:
        content.append(("next", words(LOOK_THERE)))
    return Group(heading(unexplained_title(look), look, "red"), rows(content))


def source_title(source: SourceResult, look: TerminalStyle) -> Text:
    """`✗ num-workers  breaks settings, proven`."""
    title = Text.assemble(
        (f"{look.bad} ", "bold red"), (text.line(source.id), "bold"), overflow="fold"
    )
    title.append(f"  {breaks(source)}", style="red")
    return title.append(f", {certainty(source)}", style="dim")


def breaks(source: SourceResult) -> str:
    """What a finding says of its source: `breaks settings`; of two runs that were compared, that they differ."""
    return "differs" if source.id == RECORD else f"breaks {broken(source)}"


def broken(source: SourceResult) -> str:
    """What a source that broke breaks: `settings`, `only together with num-workers`."""
    promise = "no promise" if source.scope is Scope.NONE else source.scope.value
    return f"only together with {text.listed(source.together)}" if source.together else promise


def certainty(source: SourceResult) -> str:
    """How sure that is, and whether it counts: `proven; fix verified`, `proven; accepted: a known race`."""
    verified = "; fix verified" if source.fix is not None and source.fix.verified else ""
    accepted = f"; accepted: {text.line(source.accepted)}" if source.accepted else ""
    return f"{(source.confidence or Confidence.SUSPECTED).value}{verified}{accepted}"


def unexplained_title(look: TerminalStyle) -> Text:
    """Of a difference that no source accounts for."""
    return Text.assemble(
        (f"{look.bad} ", "bold red"), (UNEXPLAINED, "bold"), ("  breaks rerun", "red")
    )


def place(divergence: Divergence) -> str:
    """Step, phase and name: `step 0, data, batch.0`; of several processes also which: `rank 1`."""
    rank, name = of_rank(divergence.name or "")
    parts = (
        None if divergence.step is None else f"step {divergence.step}",
        None if rank is None else f"rank {rank}",
        divergence.phase,
        name,
    )
    return text.listed(text.line(part) for part in parts if part)


def difference(divergence: Divergence) -> str:
    """What sort of difference it is: `another order (the sampler hands out other indices)`."""
    detail = f" ({divergence.detail})" if divergence.detail else ""
    return f"{divergence.within or _KINDS[divergence.kind]}{detail}"


def how_much(divergence: Divergence) -> str:
    """By how much two runs differ there, or how: `31.2% of elements, by up to 1.5e-08`."""
    size = divergence.size
    if size is None or divergence.within or divergence.kind is not DivergenceKind.VALUE:
        return difference(divergence)
    share = text.share(size.mismatched, size.numel)
    return f"{share} of elements, by up to {text.number(size.max_abs)}"


def hidden_by_the_loss(a: LossCurve, b: LossCurve) -> str:
    """Say that both runs have the same losses; empty where they do not."""
    steps = len(a.values)
    if not steps or steps != len(b.values) or not all(map(text.same_number, a.values, b.values)):
        return ""
    return f"the same at {text.plural(steps, 'step')}: the loss does not show this difference"


def _source_rows(source: SourceResult, look: TerminalStyle) -> Iterator[tuple[str, RenderableType]]:
    yield "what", words(source.title)
    if source.reason:
        yield "found", words(source.reason)
    if source.levels:
        yield "levels", _levels(source.levels, look)
    label = "changed" if source.id == RECORD else "evidence"
    yield from labelled(label, [words(item) for item in source.evidence])
    if source.divergence is not None:
        yield from _divergence_rows(source.divergence, look)
    if source.losses is not None:
        yield "loss", _losses(*source.losses, look)
        if grown := growth(*source.losses, look):
            yield "growth", words(grown)
    if source.divergence is not None and source.divergence.drift is not None:
        yield from labelled("layers", drift_rows(source.divergence.drift, look))


def _levels(levels: tuple[LevelResult, ...], look: TerminalStyle) -> Text:
    shown = Text(overflow="fold")
    for index, level in enumerate(levels):
        if index:
            shown.append(", ")
        shown.append(text.line(level.level), style="bold")
        if level.diverged is None:
            shown.append(" ? not run to its end", style="yellow")
        elif level.diverged:
            shown.append(f" {look.bad} differs", style="red")
        else:
            shown.append(f" {look.good} same", style="green")
    return shown


def _divergence_rows(
    divergence: Divergence, look: TerminalStyle
) -> Iterator[tuple[str, RenderableType]]:
    first = Text.assemble(
        (place(divergence), "bold"),
        ": " if place(divergence) else "",
        words(difference(divergence)),
        overflow="fold",
    )
    yield "first", first
    if divergence.size is not None:
        yield "size", words(size_in_words(divergence.size))
    yield from cause_rows(divergence, look)


def _losses(a: LossCurve, b: LossCurve, look: TerminalStyle) -> RenderableType:
    """Both runs' losses around the first step that differs, with the digits that it takes to see it."""
    steps = max(len(a.values), len(b.values))
    if hidden := hidden_by_the_loss(a, b):
        return words(hidden)
    pairs = list(zip(a.values, b.values))  # noqa: B905  # `strict` would refuse a run that ended early
    first = next((i for i, pair in enumerate(pairs) if not text.same_number(*pair)), len(pairs))
    if steps == 0:
        return words("none was seen")
    shown = _shown_steps(steps, first)
    digits = text.telling_digits(pairs[step] for step in shown if step < len(pairs))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    heads = (Text("step"), words(a.label), words(b.label), Text("difference"))
    columns = len(heads) - look.narrow
    table.add_row(*heads[:columns], style="dim")
    previous = -1
    for step in shown:
        if step != previous + 1:
            table.add_row(Text(look.gap), style="dim")
        previous = step
        sign, style = (f"{look.arrow} ", "bold") if step == first else ("", "")
        cells = (Text(f"{sign}{step}"), *map(Text, losses_at(step, a, b, digits)))
        table.add_row(*cells[:columns], style=style)
    return table


def _shown_steps(steps: int, first: int) -> list[int]:
    """All of a few; of many, both ends and what surrounds the first that differs."""
    if steps <= _SHOWN_LOSSES:
        return list(range(steps))
    around = range(max(first - 1, 0), min(first + 4, steps))
    return sorted({0, *around, steps - 1})


def losses_at(step: int, a: LossCurve, b: LossCurve, digits: int) -> tuple[str, str, str]:
    """Both losses at a step, and by how much they differ: `same`, or nothing where a run had ended."""
    runs = (a.values, b.values)
    ours, theirs = (text.loss(run[step], digits) if step < len(run) else "ended" for run in runs)
    if any(step >= len(run) for run in runs):
        return ours, theirs, ""
    same = text.same_number(a.values[step], b.values[step])
    return ours, theirs, "same" if same else f"{b.values[step] - a.values[step]:+.1e}"


def _fix(fix: Fix, look: TerminalStyle) -> RenderableType:
    proof = fix.proof or (
        "fix verified: runs with it agree" if fix.verified else "no run has tried this fix"
    )
    sign, style = (look.good, "green") if fix.verified else ("?", "yellow")
    parts: list[RenderableType] = [rows([("fix", words(fix.summary, "bold"))])]
    if fix.snippet.strip():
        parts += [Text(""), whole_lines(code(fix.snippet, look), 4), Text("")]
    parts.append(
        rows([("proof", Text.assemble((f"{sign} ", style), words(proof), overflow="fold"))])
    )
    return Group(*parts)
