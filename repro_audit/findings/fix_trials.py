"""Fixes, tried: the program's own lines rewritten in each trial's copy of the file, and the pair that parted run again.

Nothing is written where trials share the user's tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.findings.evidence import Tried
from repro_audit.findings.measurement import reference_setting
from repro_audit.fixes import propose
from repro_audit.fixes.code import Code
from repro_audit.notebook import Notebook, of_file
from repro_audit.report import model
from repro_audit.source import Source
from repro_audit.target import Target
from repro_audit.trial.request import Watch

if TYPE_CHECKING:
    from repro_audit.trial.oracle import DivergedPair, Trial, TrialOracle

MOST_BYTES = 1 << 20
"""Of a file that is rewritten."""


def try_fixes(
    sources: Mapping[str, Source],
    diverging_pairs: Mapping[str, DivergedPair],
    divergences: Mapping[str, model.Divergence],
    oracle: TrialOracle,
) -> dict[str, Tried]:
    """Rewrite what is to blame for each source that has a table for it, and run its pair again."""
    proposals = {}
    for name, diverging in diverging_pairs.items():
        code = _code(sources[name], diverging, divergences.get(name), oracle.target)
        proposal = propose(sources[name].remedies, code) if code is not None else None
        if proposal is not None:
            proposals[name] = proposal
    agreed = {}
    for name, proposal in proposals.items():
        place = _in_tree(proposal.file, oracle)
        if place is not None:
            diverging = diverging_pairs[name]
            settings = (dict(reference_setting(name, diverging)), dict(diverging.diverged.setting))
            trials = oracle.try_settings(
                [(setting, Watch()) for setting in settings],
                whole_epochs=diverging.diverged.whole_epochs,
                edited={place: proposal.written},
            )
            agreed[name] = _agree(diverging.reference, *trials)
    return {
        name: Tried(proposal=proposal, agreed=agreed.get(name))
        for name, proposal in proposals.items()
    }


def _agree(before: Trial, reference: Trial, diverged: Trial) -> bool:
    """Whether both train as far as the program did without the edit, and give the same."""
    return (
        reference.ended.status == diverged.ended.status == "ok"
        and reference.facts.steps == before.facts.steps
        and reference.digest is not None
        and reference.digest == diverged.digest
    )


def _code(
    source: Source, diverging: DivergedPair, divergence: model.Divergence | None, target: Target
) -> Code | None:
    """The file with the line to blame, and the lines in it that may share the blame; None where none is known."""
    cause = divergence.cause if divergence is not None else None
    if not source.remedies or cause is None or cause.location is None:
        return None
    file = cause.location.file
    notebook = of_file(file)
    places = [
        (each.location.file, _line(each.location, notebook))
        for each in _all(cause)
        if each.location
    ]
    places += source.lines(diverging.reference.facts.survey.get(source.id))
    is_target = target.path is not None and Path(target.path).name == Path(file).name
    try:
        path = Path(file)
        text = path.read_bytes().decode() if path.stat().st_size <= MOST_BYTES else ""
    except (OSError, ValueError):
        return None
    if notebook is not None:
        text = notebook.python
    return Code(
        file=file,
        text=text,
        notebook=notebook,
        lines=tuple(dict.fromkeys(line for name, line in places if name == file)),
        target=target.function if is_target else "",
        is_script=is_target and target.mode == "script",
    )


def _line(location: model.Location, notebook: Notebook | None) -> int:
    """Where a line is in the text of its file."""
    if notebook is None or location.cell is None:
        return location.line
    return notebook.line(location.cell, location.line)


def _all(cause: model.Cause) -> Iterator[model.Cause]:
    yield cause
    yield from cause.also


def _in_tree(file: str, oracle: TrialOracle) -> str | None:
    """A file's place below the root of the tree; None where it is not in it, or trials would write to the user's."""
    if oracle.isolation.kind == "shared":
        return None
    path = Path(file).resolve()
    root = oracle.isolation.root
    return str(path.relative_to(root)) if path.is_relative_to(root) else None
