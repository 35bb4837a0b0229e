"""The terminal format: the verdict, each finding in few lines, what was not tried, and the promises; more with `-v`."""

from __future__ import annotations

import os
import pydoc
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from repro_audit.errors import UsageError, nearest
from repro_audit.report import brief, effect, findings, results, text
from repro_audit.report import verdict as wording
from repro_audit.report.model import Environment, Outcome, Report, SourceStatus, TargetFailure
from repro_audit.report.style import (
    PROMISE_STYLES,
    PROMISE_WORDS,
    Cropped,
    TerminalStyle,
    indented,
    labelled,
    rows,
    separated,
    words,
)

_OUTPUT_LINES = 20
END_WIDTH = len("not tried")
_VERDICT_STYLES = {
    Outcome.REPRODUCIBLE: "bold reverse green",
    Outcome.NOT_REPRODUCIBLE: "bold reverse red",
    Outcome.INCONCLUSIVE: "bold reverse yellow",
    Outcome.TARGET_FAILED: "bold reverse red",
}


def print_report(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print the page to the tool's own console."""
    look = TerminalStyle.of(console)
    print_whole([render(report, look, verbose=verbose)], console, look)


def print_finding(report: Report, id: str, console: Console) -> None:  # noqa: A002  # as of `finding`
    """Print one finding whole.

    Raises:
        UsageError: the report has no such finding.
    """
    look = TerminalStyle.of(console)
    print_whole([finding(report, id, look)], console, look)


def print_whole(
    parts: Iterable[RenderableType], console: Console, look: TerminalStyle, *, paged: bool = False
) -> None:
    """Print whole lines, without trailing blanks or what the stream's encoding can not hold.

    Where it may be `paged`, a terminal that is too low for all of it shows it in the user's pager.
    """
    with console.capture() as capture:
        for part in parts:
            console.print(part, width=look.width, crop=False)
    printed = "".join(f"{line.rstrip(' ')}\n" for line in capture.get().rstrip("\n").split("\n"))
    encoding = console.encoding
    if console.options.ascii_only:
        printed = text.ascii_typography(printed)
    written = printed.encode(encoding, "backslashreplace").decode(encoding)
    if paged and console.is_terminal and written.count("\n") >= console.height:
        os.environ.setdefault("LESS", "-R")  # colours as they are
        pydoc.pager(written)
        return
    console.file.write(written)
    console.file.flush()


def stdout_console(file: IO[str] | None = None, *, width: int | None = None) -> Console:
    """The console of what was asked for: stdout, unless a test asks for another stream."""
    # The usual black behind code is a blot on a light terminal.
    theme = Theme({"markdown.code": "bold cyan"})
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False, theme=theme)


def stderr_console(file: IO[str] | None = None, *, width: int | None = None) -> Console:
    """The console of the tool's own words: stderr, unless a test asks for another stream."""
    return Console(
        file=file, stderr=file is None, width=width, highlight=False, markup=False, emoji=False
    )


def render(report: Report, look: TerminalStyle, *, verbose: bool = False) -> RenderableType:
    """The whole page: with each finding in full and every source's reason where `verbose`."""
    sections = _sections(report, look) if verbose else _short_sections(report, look)
    return Group(*separated(sections))


def verdict(report: Report, look: TerminalStyle) -> RenderableType:
    """The verdict alone, with what it hangs on and what it does not cover."""
    return Group(verdict_line(report, look), rows([*_conditions(report), *_further(report)]))


def finding(report: Report, id: str, look: TerminalStyle) -> RenderableType:  # noqa: A002  # the field's name
    """One finding whole, by the id of its source; `unexplained` is the difference that no source accounts for.

    Raises:
        UsageError: the report has no such finding.
    """
    if id == findings.UNEXPLAINED and report.unexplained is not None:
        return findings.unexplained(report.unexplained, look)
    found = {source.id: source for source in effect.findings(report.sources)}
    if id not in found:
        known = (*found, *([findings.UNEXPLAINED] if report.unexplained is not None else []))
        raise UsageError(f"there is no finding {id!r}", next_step=nearest(id, known, "finding"))
    return findings.broken_source(found[id], look)


def _short_sections(report: Report, look: TerminalStyle) -> Iterator[RenderableType]:
    notes = [("note", _cropped("; ".join(report.notes), 2, look, "yellow"))] if report.notes else []
    head = [*_conditions(report), _target(report, look), *notes]
    yield Group(verdict_line(report, look), rows(head))
    if report.failure is not None:
        yield _failure(report.failure)
        return
    broke = effect.findings(report.sources)
    if report.comparison is not None:
        yield from (findings.broken_source(source, look) for source in broke)
        return
    if report.unexplained is not None:
        yield brief.unexplained(report.unexplained, look)
    for source in broke:
        yield brief.broken_source(source, look)
    end = [("further", _cropped(hint, 1, look)) for hint in report.further[:1]]
    if broke:
        end.append(("more", words("-v shows each finding whole, with the code of its fix")))
    yield Group(
        rows(_not_judged(report, look), width=END_WIDTH),
        _promises(report, look),
        rows(end, width=END_WIDTH),
    )


def _sections(report: Report, look: TerminalStyle) -> Iterator[RenderableType]:
    head = [*_conditions(report), _target(report, look), *_labelled("note", report.notes, "yellow")]
    yield Group(verdict_line(report, look), rows([*head, *_made(report)]))
    if report.failure is not None:
        yield _failure(report.failure)
        return
    if report.comparison is not None:
        yield from (
            findings.broken_source(source, look) for source in effect.findings(report.sources)
        )
        return
    yield results.table(report.sources, look)
    if report.unexplained is not None:
        yield findings.unexplained(report.unexplained, look)
    for source in effect.findings(report.sources):
        yield findings.broken_source(source, look)
    yield Group(_promises(report, look), rows(_further(report), width=END_WIDTH))


def _conditions(report: Report) -> Iterator[tuple[str, RenderableType]]:
    """What the verdict hangs on, and why there is none."""
    if condition := wording.condition(report):
        yield "only if", words(condition)
    if report.nothing_at_stake is not None:
        yield "at stake", words(f"nothing: {report.nothing_at_stake}", "bold yellow")
    if report.inconclusive is not None:
        yield "why", words(report.inconclusive, "yellow")


def _target(report: Report, look: TerminalStyle) -> tuple[str, RenderableType]:
    command = (text.line(report.target.command), "bold")
    content = Text.assemble(command, f": {wording.ran(report)}")
    return "target", Cropped(content=content, lines=2, look=look)


def _made(report: Report) -> Iterator[tuple[str, RenderableType]]:
    """How the audit was made."""
    yield from _labelled("assumed", report.assumptions)
    if report.coverage:
        yield "seen", words(report.coverage)
    yield "on", words(_machine(report.environment))
    how = report.settings
    fresh = ", fresh interpreters" if how.fresh else ""
    writes = wording.WRITES.get(how.isolation, how.isolation)
    yield "by", words(f"repro-audit {report.version}, seed {how.seed}{fresh}, {writes}")


def _further(report: Report) -> Iterator[tuple[str, RenderableType]]:
    return _labelled("further", report.further)


def _labelled(
    label: str, lines: Sequence[str], style: str = ""
) -> Iterator[tuple[str, RenderableType]]:
    return labelled(label, (words(line, style) for line in lines))


def _cropped(content: str, lines: int, look: TerminalStyle, style: str = "") -> RenderableType:
    return Cropped(content=words(content, style), lines=lines, look=look)


def _machine(environment: Environment) -> str:
    threads = f"{text.plural(environment.threads, 'thread')} on " if environment.threads else ""
    parts = (
        f"Python {environment.python}",
        f"torch {environment.torch}" if environment.torch else "",
        f"{threads}{environment.cpu}",
        *(device for device in environment.devices if device != "cpu"),
    )
    return text.listed(part for part in parts if part)


def _not_judged(report: Report, look: TerminalStyle) -> Iterator[tuple[str, RenderableType]]:
    """What ended in an error, and how much was not tried."""
    label = "error"
    for same in results.by_reason(report.sources, SourceStatus.ERROR).values():
        ids = text.listed(source.id for source in same)
        yield label, _cropped(f"{ids}: {same[0].reason}", 2, look, "yellow")
        label = ""
    untried = sum(source.status is SourceStatus.NOT_EXERCISED for source in report.sources)
    if untried:
        many = f"{untried} of {text.plural(len(report.sources), 'source')}"
        yield "not tried", words(f"{many}; -v says why")


def _promises(report: Report, look: TerminalStyle) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold", min_width=END_WIDTH)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for scope, status in report.decision.scopes.items():
        sign = Text(f"{look.promise_sign(status)} {PROMISE_WORDS[status]}", PROMISE_STYLES[status])
        because = words(f"{wording.meaning(report, scope)}: {wording.because(report, scope)}")
        grid.add_row(Text(scope.value), sign, because)
    return indented(grid, 2)


def verdict_line(report: Report, look: TerminalStyle) -> Text:
    """The verdict, what it covers, and what the exit code means."""
    outcome = report.verdict
    said = (f"{look.verdict_sign(outcome)} {wording.said(report)}", _VERDICT_STYLES[outcome])
    return Text.assemble(said, (f" ({wording.exit_in_words(report)})", "dim"), overflow="fold")


def _failure(failure: TargetFailure) -> RenderableType:
    said = (("where", failure.where), ("why", failure.why), ("next", failure.next_step))
    about = [
        ("what", words(failure.what, "bold")),
        *((label, Text(text.block(s), overflow="fold")) for label, s in said if s),
    ]
    parts: list[RenderableType] = [rows(about)]
    for label, content in (
        ("Its traceback", text.block(failure.traceback)),
        (
            f"The last {_OUTPUT_LINES} lines it printed",
            text.last_lines(failure.output, _OUTPUT_LINES),
        ),
    ):
        if content:
            parts += [
                Text(""),
                indented(Text(label, "dim"), 2),
                indented(Text(content, overflow="fold"), 4),
            ]
    return Group(*parts)
