"""The two sides of a comparison: what is had of a trial that was made here, and of a record."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from repro_audit.analysis.moved_lines import onto, placed, without_lines
from repro_audit.analysis.pinpoint import Run
from repro_audit.findings.comparison import Side
from repro_audit.notebook import of_file
from repro_audit.storage import record as files
from repro_audit.storage.events import DETAIL, MAIN, Detail, Kind, processes
from repro_audit.storage.fingerprint import CLEAN, CODE, COMMIT, FILE, TARGET
from repro_audit.storage.record import Record
from repro_audit.storage.values import open_values
from repro_audit.target import Target
from repro_audit.trial.oracle import Trial
from repro_audit.trial.request import VALUES

THIS_RUN = "this run"
_SHOWN_BYTES = 1 << 20
"""Of the program's own files, larger ones are left out."""
_SECONDS = 120.0


def fingerprint(floor: Trial, watched: Trial, target: Target, root: Path) -> dict[str, str]:
    """What a run ran on, with its arguments, the files that it read and the state of its repository."""
    words = " ".join((target.spec, *target.argv))
    found = {TARGET: words, **floor.facts.fingerprint}
    for name, text in program(floor, target, root).items():
        found[f"{CODE} {name}"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    for directory in processes(watched.directory / DETAIL, rank=None).values():
        found.update(_files_read(Detail.open(directory)))
    return {**found, **_repository(root)}


def program(floor: Trial, target: Target, root: Path) -> dict[str, str]:
    """The texts of the program's own files below its tree, but for those that are too large or can not be read."""
    path = root / (target.path or "")
    started = str(path.relative_to(root)) if path.is_relative_to(root) else ""
    found = {}
    for name in dict.fromkeys((*floor.facts.own_files, started)):
        place = root / name
        notebook = of_file(place)
        if notebook is not None:
            found[name] = notebook.python
        elif place.is_file() and place.stat().st_size <= _SHOWN_BYTES:
            found[name] = place.read_text(encoding="utf-8", errors="replace")
    return found


def _files_read(detail: Detail) -> dict[str, str]:
    """The digests of files as they were first opened for reading, but for those that the run had written itself."""
    found: dict[str, str] = {}
    wrote = set()
    for row in np.flatnonzero(detail.kind == Kind.FILE).tolist():
        name, mode = (detail.strings[int(column[row])] for column in (detail.name, detail.meta))
        digest = detail.after[row].tobytes()
        if "w" in mode:
            wrote.add(name)
        elif name not in wrote and any(digest):
            found.setdefault(f"{FILE} {name}", digest.hex())
    return found


def _repository(root: Path) -> dict[str, str]:
    """The commit that is checked out, and whether files of it were changed since."""
    commit, changed = git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain", "-uno")
    if not commit:
        return {}
    return {COMMIT: commit[:12], CLEAN: "yes" if changed else "no"}


def git(directory: Path, *words: str) -> str:
    """What git answers; empty where it has no answer."""
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607 - the user's own
            cwd=directory,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip("\n ") if done.returncode == 0 else ""


def of_record(recorded: Record, words: str) -> Side:
    """A record, by what to call it; its events are to be had apart."""
    header = recorded.header
    return Side(
        words=words,
        trace=recorded.trace,
        values=open_values(recorded.directory / files.VALUES),
        losses=header.losses,
        fingerprint=header.fingerprint,
        files=header.files,
    )


def of_trial(trial: Trial) -> Side:
    """A trial of this session; likewise."""
    return Side(
        words=THIS_RUN,
        trace=trial.trace,
        values=open_values(trial.directory / VALUES),
        losses=trial.facts.losses,
    )


def events_of_trial(trial: Trial, rank: int) -> dict[str, Detail]:
    """The events of each process of one rank of a trial."""
    places = processes(trial.directory / DETAIL, rank)
    return {name: Detail.open(place) for name, place in places.items()}


def _run(details: Mapping[str, Detail]) -> Run | None:
    """The events of a run; None where none were recorded."""
    if MAIN not in details:
        return None
    return Run(
        main=details[MAIN],
        workers={name: detail for name, detail in details.items() if name != MAIN},
    )


def events_of_record(
    record: Record, rank: int, root: Path, other: Side, known: Collection[str] = ()
) -> dict[str, Detail]:
    """The events of one rank in a record, with lines as the other run's files have them."""
    here = {*known, *(str(root / name) for name in other.files)}
    return {
        name: onto(placed(Detail.open(place), root, here), record.header.files, other.files, root)
        for name, place in processes(record.directory / DETAIL, rank).items()
    }


def with_runs(
    a: Side, b: Side, ours: dict[str, Detail], theirs: dict[str, Detail]
) -> tuple[Side, Side]:
    """Both sides with their events, as far as these can be compared."""
    pythons = [side.fingerprint.get("Python", "").rpartition(".")[0] for side in (a, b)]
    if pythons[0] != pythons[1]:
        ours, theirs = (
            {name: without_lines(detail) for name, detail in details.items()}
            for details in (ours, theirs)
        )
    return replace(a, run=_run(ours)), replace(b, run=_run(theirs))
