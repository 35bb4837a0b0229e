"""Markdown, as GitHub shows it: the summary of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from repro_audit.report import text
from repro_audit.report import verdict as wording
from repro_audit.report.findings import how_much, place
from repro_audit.report.model import Divergence, Report, SourceResult, SourceStatus, TargetFailure
from repro_audit.report.plain import Finding, findings, of_failure
from repro_audit.report.results import by_reason, word
from repro_audit.report.style import PROMISE_WORDS, TerminalStyle

_LOOK = TerminalStyle()
_ENTITIES = {"|": "&#124;", "<": "&lt;", ">": "&gt;", "&": "&amp;"}
"""For what ends the cell of a table, or begins HTML, whatever stands before it."""
_SIGNS = re.compile(r"[|<>&\\`*_\[\]#~@$]|:(?=//|[\w+-]+:)|(?<=www)\.|^[-+=]", flags=re.IGNORECASE)
"""What begins emphasis, code, links, addresses, headings, lists, emojis or formulas."""
_NUMBER = re.compile(r"^(\d+)(?=[.)](?:\s|$))")
"""Begins an item of a list."""
_OUTPUT_LINES = 20
_LISTED = (SourceStatus.DELEGATED, SourceStatus.HELD, SourceStatus.NOT_EXERCISED)


def render(report: Report) -> str:
    """The page."""
    return "\n\n".join(_parts(report)) + "\n"


def prose(content: str) -> str:
    """A line that Markdown shows as it is, wherever it stands: in a paragraph, a list, the cell of a table."""
    line = " ".join(text.line(content).split())
    escaped = _SIGNS.sub(lambda sign: _ENTITIES.get(sign[0], f"\\{sign[0]}"), line)
    return _NUMBER.sub(r"\1\\", escaped)


def code(content: str) -> str:
    """A line in a span of code; not for tables."""
    line = text.line(content)
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(content: str, language: str = "") -> str:
    """A block of code, whatever is in it: Python or a diff, unless it is said to be something else."""
    block = text.block(content, tabs=True)
    fence = "`" * max(_longest_run(block) + 1, 3)
    language = language or ("diff" if block.startswith("--- ") else "python")
    return f"{fence}{language}\n{block}\n{fence}"


def _parts(report: Report) -> Iterator[str]:
    yield f"## {_LOOK.verdict_sign(report.verdict)} {prose(wording.said(report))}"
    yield "\n".join(_head(report))
    if report.failure is not None:
        yield from _failure(report.failure)
        return
    if report.comparison is None:
        yield "\n".join(_promises(report))
    for finding in findings(report):
        yield from _finding(finding)
    if report.comparison is None:
        yield from _sources(report)
    if report.further:
        yield "\n".join(f"- further: {prose(hint)}" for hint in report.further)


def _head(report: Report) -> Iterator[str]:
    command = code(report.target.command)
    yield f"- target: {command}, {wording.ran(report)} ({wording.exit_in_words(report)})"
    said = (
        wording.condition(report) and f"only if {wording.condition(report)}",
        report.nothing_at_stake and f"nothing at stake: {report.nothing_at_stake}",
        report.inconclusive,
        *report.notes,
    )
    yield from (f"- {prose(each)}" for each in said if each)


def _promises(report: Report) -> Iterator[str]:
    yield "| promise | | |"
    yield "| --- | --- | --- |"
    for scope, status in report.decision.scopes.items():
        what = f"{scope.value}: {wording.meaning(report, scope)}"
        became = f"{_LOOK.promise_sign(status)} {PROMISE_WORDS[status]}"
        yield f"| {what} | {became} | {prose(wording.because(report, scope))} |"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"### {_LOOK.bad} {prose(finding.id)} {prose(finding.breaks)}"
    yield ": ".join(prose(said) for said in (finding.title, finding.reason) if said)
    if finding.divergence is not None:
        yield "\n".join(f"- {line}" for line in _divergence(finding.divergence))
    if finding.fix is not None:
        proof = f" ({prose(finding.fix.proof)})" if finding.fix.proof else ""
        yield f"**fix**: {prose(finding.fix.summary)}{proof}"
    if finding.snippet:
        yield fenced(finding.snippet)


def _divergence(divergence: Divergence) -> Iterator[str]:
    cause = divergence.cause
    if cause is not None and cause.location is not None:
        line = f": {code(cause.location.code)}" if cause.location.code else ""
        within = f" in {code(cause.location.function)}" if cause.location.function else ""
        yield f"where: {code(cause.location.place)}{within}{line}"
    if cause is not None:
        yield f"cause: {prose(cause.what)}"
    elif divergence.no_cause:
        yield f"cause not found: {prose(divergence.no_cause)}"
    since = f" since {code(place(divergence))}" if place(divergence) else ""
    yield f"how much: {prose(how_much(divergence))}{since}"


def _sources(report: Report) -> Iterator[str]:
    """What ended in an error, in sight; all others unfolded on demand."""
    for same in by_reason(report.sources, SourceStatus.ERROR).values():
        yield f"- error: {_ids(same)}: {prose(same[0].reason)}"
    by_word: dict[str, list[list[SourceResult]]] = {}
    for status in _LISTED:
        for same in by_reason(report.sources, status).values():
            by_word.setdefault(word(same[0]), []).append(same)
    for said, groups in by_word.items():
        of = f"{sum(map(len, groups))} of {text.plural(len(report.sources), 'source')}"
        rows = (f"| {_ids(same)} | {prose(same[0].reason)} |" for same in groups)
        yield _folded(f"{said}: {of}", ["| | |", "| --- | --- |", *rows])


def _ids(sources: Iterable[SourceResult]) -> str:
    return prose(text.listed(source.id for source in sources))


def _folded(title: str, lines: Iterable[str]) -> str:
    """Lines below a title that a click unfolds."""
    content = "\n".join(lines)
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _failure(failure: TargetFailure) -> Iterator[str]:
    yield "\n".join(f"- {prose(line)}" for line in of_failure(failure))
    for content in (failure.traceback, text.last_lines(failure.output, _OUTPUT_LINES)):
        if content:
            yield fenced(content, "text")


def _longest_run(content: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", content)), default=0)
