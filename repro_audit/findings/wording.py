"""A cause that an inspection found, in the words of the report."""

from __future__ import annotations

import linecache
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.analysis.compare import PINNED, VARIED
from repro_audit.findings.evidence import located
from repro_audit.findings.measurement import reported
from repro_audit.notebook import of_file
from repro_audit.report import model
from repro_audit.storage.events import Site
from repro_audit.storage.facts import GENERATORS

if TYPE_CHECKING:
    from repro_audit.findings.inspection import Finding, Located

_SAME_INPUTS = {
    "op": "the same inputs gave another output",
    "line": "the values that it names were the same before it, and not after it",
}
VANISHED = "with every op and line watched, the two runs agree: watching changes the timing that it hangs on"


def in_words(finding: Finding, *, never_seeded: bool = False) -> tuple[model.Cause | None, str]:
    """The first cause, with the others in it; else why there is none.

    Args:
        finding: of the inspection.
        never_seeded: what to fix is that the program seeds nothing, so the first draw is the line to name.
    """
    if finding.vanished:
        return None, VANISHED
    if not finding.causes:
        return None, finding.reason
    first, *others = finding.causes
    cause = _cause(first, tuple(_cause(other, ()) for other in others))
    return _from_its_beginning(cause, first) if never_seeded else cause, finding.reason


def _from_its_beginning(cause: model.Cause, located: Located) -> model.Cause:
    """A draw from a generator that nothing seeded, told of the first line that drew from it."""
    began = located.cause.began
    site = None if began is None else began.either.site
    shows = cause.location
    if began is None or site is None or shows is None:
        return cause
    location = _location(site)
    if location.place == shows.place:
        return cause
    return replace(
        cause,
        step=began.either.step,
        phase=began.either.phase.label,
        location=location,
        module=began.either.module or None,
        evidence=(*cause.evidence, f"it first shows in what {shows.place} draws"),
    )


def _cause(located: Located, also: tuple[model.Cause, ...]) -> model.Cause:
    cause = located.cause
    event = cause.place.either
    is_op = event.kind.name == "OP"
    return model.Cause(
        what=_what(located),
        step=event.step,
        phase=event.phase.label,
        op=event.name if is_op else None,
        module=event.module or None,
        generator=cause.generator,
        location=_location(event.site) if event.site is not None else None,
        size=reported(located.size) if located.size is not None else None,
        evidence=tuple(_evidence(located)),
        also=also,
    )


def _what(located: Located) -> str:
    """How the runs part there, in a sentence."""
    cause = located.cause
    said = _named(cause.detail)
    if cause.kind == "draw":
        generator = GENERATORS.get(cause.generator, cause.generator)
        return f"{generator} {said}"
    if cause.incomplete:
        return said
    return "; ".join(filter(None, (_SAME_INPUTS.get(cause.kind, ""), said)))


def _named(words: str) -> str:
    """Files below the working directory as they are called there."""
    for base in working_directory():
        words = words.replace(f"{base}{os.sep}", "")
    return words


def _evidence(located: Located) -> list[str]:
    """The sample, the worker, and what ran in place of a line of the program's own."""
    cause = located.cause
    event = cause.place.either
    lines = []
    if event.site is not None and event.site.made:
        lines.append("the line made what ran; none of the program's own was running")
    sample = cause.sample
    if sample is not None:
        place = (
            f"sample {sample.position} of the batch, index {sample.index} of the dataset, of "
            if sample.position is not None
            else ""
        )
        lines.append(f"while fetching {place}batch {sample.fetch}")
    runs = {PINNED: cause.process, VARIED: cause.other_process}
    if set(runs.values()) != {"main"}:
        lines.append("; ".join(f"in {run} by {_process(name)}" for run, name in runs.items()))
    return lines


def _process(name: str) -> str:
    """`worker-0-1-2` as a reader knows it."""
    parts = name.split("-")
    return "the main process" if name == "main" else f"worker {parts[-1]} (epoch {parts[-2]})"


def _location(site: Site) -> model.Location:
    notebook = of_file(site.file)
    if notebook is not None:
        notebook.remember(site.file)
    return located(
        _relative(site.file),
        site.line,
        site.function if not site.function.startswith("<module") else None,
        linecache.getline(site.file, site.line).strip(),
    )


def _relative(file: str) -> str:
    """A file below the working directory as it is called there."""
    for base in working_directory():
        if Path(file).is_relative_to(base):
            return str(Path(file).relative_to(base))
    return file


def working_directory() -> tuple[Path, Path]:
    """The working directory, by both of its names."""
    return Path.cwd(), Path(os.path.realpath(Path.cwd()))
