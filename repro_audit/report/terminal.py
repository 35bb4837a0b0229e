"""The terminal format: what was audited, each source, what to write, and last the verdict."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from repro_audit.errors import UsageError, nearest
from repro_audit.report import findings, text
from repro_audit.report.model import (
    PROMISES,
    Environment,
    Outcome,
    PromiseStatus,
    Report,
    SourceResult,
    SourceStatus,
    TargetFailure,
    broken_promise,
    required_promises,
)
from repro_audit.report.style import (
    PROMISE_STYLES,
    SOURCE_STYLES,
    TerminalStyle,
    heading,
    indented,
    rows,
    words,
)
from repro_audit.source import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

_OUTPUT_LINES = 20
_STATUS_WIDTH = 15
_FOLDED = (SourceStatus.HELD, SourceStatus.DELEGATED, SourceStatus.NOT_EXERCISED)
_PROMISE_WORDS = {
    Scope.RERUN: "the same command again",
    Scope.SETTINGS: "other settings, same machine",
    Scope.PORTABLE: "another machine (emulated)",
}
_ISOLATION_WORDS = {
    "overlay": "writes kept off the tree",
    "copy": "in a copy of the tree",
    "shared": "writes go to the tree",
}
_VERDICT_STYLES = {
    Outcome.REPRODUCIBLE: "bold reverse green",
    Outcome.NOT_REPRODUCIBLE: "bold reverse red",
    Outcome.INCONCLUSIVE: "bold reverse yellow",
    Outcome.TARGET_FAILED: "bold reverse red",
}


def print_report(report: Report, console: Console) -> None:
    """Print the page to the tool's own console."""
    look = TerminalStyle.of(console)
    print_whole([render(report, look)], console, look)


def print_whole(parts: Iterable[RenderableType], console: Console, look: TerminalStyle) -> None:
    """Print whole lines, without trailing blanks or what the stream's encoding can not hold."""
    with console.capture() as capture:
        for part in parts:
            console.print(part, width=look.width, crop=False)
    printed = "".join(f"{line.rstrip(' ')}\n" for line in capture.get().rstrip("\n").split("\n"))
    encoding = console.encoding
    if console.options.ascii_only:
        printed = text.ascii_typography(printed)
    console.file.write(printed.encode(encoding, "backslashreplace").decode(encoding))
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


def render(report: Report, look: TerminalStyle) -> RenderableType:
    """The whole page."""
    return Group(*_separated(_sections(report, look)))


def finding(report: Report, id: str, look: TerminalStyle) -> RenderableType:  # noqa: A002  # the field's name
    """One finding whole, by the id of its source; `unexplained` is the difference that no source accounts for.

    Raises:
        UsageError: the report has no such finding.
    """
    if id == findings.UNEXPLAINED and report.unexplained is not None:
        return findings.unexplained(report.unexplained, look)
    found = {source.id: source for source in _broken(report.sources)}
    if id not in found:
        known = (*found, *([findings.UNEXPLAINED] if report.unexplained is not None else []))
        raise UsageError(f"there is no finding {id!r}", next_step=nearest(id, known, "finding"))
    return findings.broken_source(found[id], look)


def _sections(report: Report, look: TerminalStyle) -> Iterator[RenderableType]:
    yield _top(report)
    if report.failure is not None:
        yield _failure(report.failure, look)
    else:
        yield _sources(report, look)
        if report.unexplained is not None:
            yield findings.unexplained(report.unexplained, look)
        for source in _broken(report.sources):
            yield findings.broken_source(source, look)
        yield _promises(report, look)
    yield verdict(report, look)


def _broken(sources: Iterable[SourceResult]) -> list[SourceResult]:
    """What broke, the narrowest promise first, since that is the one to fix first."""
    order = {scope: index for index, scope in enumerate((*PROMISES, Scope.NONE))}
    return sorted(
        (source for source in sources if source.status is SourceStatus.BROKE),
        key=lambda s: order[s.scope],
    )


def _separated(sections: Iterable[RenderableType]) -> Iterator[RenderableType]:
    for index, section in enumerate(sections):
        if index:
            yield Text("")
        yield section


def _top(report: Report) -> RenderableType:
    argv = " ".join(report.target.argv)
    title = Text.assemble(
        (f"repro-audit {report.version}  ", "dim"),
        words(f"{report.target.spec} {argv}".strip(), "bold"),
        overflow="fold",
    )
    return Group(title, rows(_top_rows(report)))


def _top_rows(report: Report) -> Iterator[tuple[str, RenderableType]]:
    if report.nothing_at_stake is not None:
        yield "at stake", words(f"nothing: {report.nothing_at_stake}", "bold yellow")
    for index, assumption in enumerate(report.assumptions):
        yield "assumed" if index == 0 else "", words(assumption)
    if report.coverage:
        yield "seen", words(report.coverage)
    yield "on", words(_machine(report.environment))
    how = report.settings
    trials = text.plural(len(report.trials), "trial")
    fresh = ", fresh interpreters" if how.fresh else ""
    writes = _ISOLATION_WORDS.get(how.isolation, how.isolation)
    ran = f"{trials} in {text.seconds(report.seconds)}, seed {how.seed}{fresh}, {writes}"
    yield "ran", words(ran)
    for index, note in enumerate(report.notes):
        yield "note" if index == 0 else "", words(note, "yellow")


def _machine(environment: Environment) -> str:
    threads = f"{text.plural(environment.threads, 'thread')} on " if environment.threads else ""
    parts = (
        f"Python {environment.python}",
        f"torch {environment.torch}" if environment.torch else "",
        f"{threads}{environment.cpu}",
        *(device for device in environment.devices if device != "cpu"),
    )
    return text.listed(part for part in parts if part)


def _sources(report: Report, look: TerminalStyle) -> RenderableType:
    errors = [source for source in report.sources if source.status is SourceStatus.ERROR]
    singles = [*_broken(report.sources), *errors]
    parts = [_single_sources(singles, look)] if singles else []
    folds = [(status, _folded(report.sources, status)) for status in _FOLDED]
    parts.append(rows(_fold_rows(folds, look), width=_STATUS_WIDTH))
    return Group(*parts)


def _single_sources(sources: list[SourceResult], look: TerminalStyle) -> RenderableType:
    """The table of what broke or could not be tried, a row each."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=_STATUS_WIDTH, no_wrap=True)
    for _ in range(1 if look.narrow else 3):
        grid.add_column(overflow="fold")
    for source in sources:
        status = Text(
            f"{look.source_sign(source.status)} {source.status.value}", SOURCE_STYLES[source.status]
        )
        promise = broken_promise(source, sources)
        scope = "" if promise is Scope.NONE else promise.value
        cells = [words(source.id, "bold"), words(scope), words(_summary(source))]
        grid.add_row(status, *([Text("\n").join(c for c in cells if c)] if look.narrow else cells))
    return indented(grid, 2)


def _summary(source: SourceResult) -> str:
    if source.status is SourceStatus.BROKE and source.divergence is not None:
        return findings.place(source.divergence) or source.reason
    return source.reason


def _folded(sources: tuple[SourceResult, ...], status: SourceStatus) -> dict[str, list[str]]:
    """The ids of the sources with a status, by reason."""
    by_reason: dict[str, list[str]] = {}
    for source in sources:
        if source.status is status:
            by_reason.setdefault(source.reason, []).append(source.id)
    return by_reason


def _fold_rows(
    folds: list[tuple[SourceStatus, dict[str, list[str]]]], look: TerminalStyle
) -> Iterator[tuple[Text, RenderableType]]:
    for status, by_reason in folds:
        style = SOURCE_STYLES[status]
        label = Text(f"{look.source_sign(status)} {status.value.replace('-', ' ')}", style)
        for reason, ids in by_reason.items():
            because = words(f": {reason}" if reason else "")
            yield (
                label,
                Text.assemble((text.line(text.listed(ids)), style), because, overflow="fold"),
            )
            label = Text("")


def _promises(report: Report, look: TerminalStyle) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for scope, status in report.decision.scopes.items():
        sign = Text(f"{look.promise_sign(status)} {status.value}", PROMISE_STYLES[status])
        because = words(f"{_PROMISE_WORDS[scope]}: {_because(report, scope, status)}")
        grid.add_row(Text(scope.value), sign, because)
    return indented(grid, 2)


def _because(report: Report, scope: Scope, status: PromiseStatus) -> str:
    sources = [
        source for source in report.sources if broken_promise(source, report.sources) is scope
    ]
    by_status = {s: [source.id for source in sources if source.status is s] for s in SourceStatus}
    if status is PromiseStatus.BROKE:
        unexplained = scope is Scope.RERUN and report.unexplained is not None
        no_source = ["a cause that no source accounts for"] if unexplained else []
        return "broken by " + text.listed([*by_status[SourceStatus.BROKE], *no_source])
    if scope is Scope.RERUN and report.inconclusive is not None:
        return report.inconclusive
    if report.nothing_at_stake is not None:
        return "nothing was at stake, so runs that agree prove nothing"
    if by_status[SourceStatus.ERROR]:
        return "not all could be tried: " + text.listed(by_status[SourceStatus.ERROR])
    held, delegated = len(by_status[SourceStatus.HELD]), len(by_status[SourceStatus.DELEGATED])
    if not held + delegated:
        left_out = all(source.left_out for source in sources)
        nothing = "nothing of it was tried" if left_out else "nothing of it could be exercised"
        return "only repeated as it is" if scope is Scope.RERUN else nothing
    left_to_us = f", {delegated} delegated" if delegated else ""
    return f"{held} of {text.plural(len(sources), 'source')} held{left_to_us}"


def verdict(report: Report, look: TerminalStyle) -> RenderableType:
    """The verdict, and before it what it does not cover."""
    line = verdict_line(report, look)
    labelled = [
        ("further" if index == 0 else "", words(hint)) for index, hint in enumerate(report.further)
    ]
    if report.conditions and report.verdict is Outcome.REPRODUCIBLE:
        seeded = f"the caller seeds {' and '.join(report.conditions)}"
        labelled.insert(0, ("only if", words(seeded)))
    return Group(rows(labelled), Text(""), line) if labelled else line


def verdict_line(report: Report, look: TerminalStyle) -> Text:
    """The verdict, what it covers, and what the exit code means."""
    decision = report.decision
    by_status = {
        status: [scope for scope in PROMISES if decision.scopes[scope] is status]
        for status in PromiseStatus
    }
    required = required_promises(report.require)
    tail = f" (exit {decision.exit_code}; {report.require.value} required)"
    if decision.verdict is Outcome.REPRODUCIBLE:
        held = by_status[PromiseStatus.HELD]
        tried = report.tried(*held)
        said = f"{look.good} REPRODUCIBLE on {_scopes(held)} as far as tried: {tried.tried} of {tried.of}"
        if by_status[PromiseStatus.BROKE]:
            said += f", not on {_scopes(by_status[PromiseStatus.BROKE])}"
        elif untested := [s for s in by_status[PromiseStatus.UNKNOWN] if s in required]:
            said += f"; {_scopes(untested)} untested"
    elif decision.verdict is Outcome.NOT_REPRODUCIBLE:
        broke = [scope for scope in by_status[PromiseStatus.BROKE] if scope in required]
        said = f"{look.bad} NOT REPRODUCIBLE on {_scopes(broke)}"
    elif decision.verdict is Outcome.INCONCLUSIVE:
        said = "? INCONCLUSIVE: not every trial could be judged"
        if report.nothing_at_stake is not None:
            said = "? INCONCLUSIVE: nothing was at stake"
    else:
        said, tail = (
            f"{look.bad} TARGET FAILED, so nothing was audited",
            f" (exit {decision.exit_code})",
        )
    return Text.assemble((said, _VERDICT_STYLES[decision.verdict]), (tail, "dim"), overflow="fold")


def _scopes(scopes: list[Scope]) -> str:
    return text.listed(scope.value for scope in scopes)


def _failure(failure: TargetFailure, look: TerminalStyle) -> RenderableType:
    title = Text.assemble((f"{look.bad} ", "bold red"), ("the target failed by itself", "bold"))
    said = (("where", failure.where), ("why", failure.why), ("next", failure.next_step))
    labelled = [
        ("what", words(failure.what, "bold")),
        *((label, Text(text.block(s), overflow="fold")) for label, s in said if s),
    ]
    parts: list[RenderableType] = [heading(title, look, "red"), rows(labelled)]
    for label, content in (
        ("Its traceback", text.block(failure.traceback)),
        (f"The last {_OUTPUT_LINES} lines it printed", _last_lines(failure.output)),
    ):
        if content:
            parts += [
                Text(""),
                indented(Text(label, "dim"), 2),
                indented(Text(content, overflow="fold"), 4),
            ]
    return Group(*parts)


def _last_lines(output: str) -> str:
    """The end of captured output, with progress bars that redraw one line shown as they ended."""
    lines = [
        line.rstrip("\r").rpartition("\r")[2] for line in output[-text.BLOCK_LIMIT :].split("\n")
    ]
    while lines and not lines[-1].strip():
        lines.pop()
    return text.block("\n".join(lines[-_OUTPUT_LINES:]))
