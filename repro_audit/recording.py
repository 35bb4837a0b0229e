"""Records from end to end: a pinned run is saved, run again and compared with, or compared with another one.

A record is a trace of the program with everything pinned, the same with every op and line watched, and what it ran on.
`verify` and `diff` are the audit's comparison with one side, or both, read from a file.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit import __version__
from repro_audit.analysis.moved_lines import onto, placed, site_files
from repro_audit.analysis.pinpoint import Run
from repro_audit.auditing import Audit, session
from repro_audit.errors import UsageError
from repro_audit.findings import comparison
from repro_audit.findings.comparison import Side
from repro_audit.report import model
from repro_audit.sources.cpu_isa import AVX2, BASELINE
from repro_audit.storage import record as files
from repro_audit.storage.events import DETAIL, MAIN, Detail, Kind, processes
from repro_audit.storage.fingerprint import (
    CAPABILITY,
    CLEAN,
    CODE,
    COMMIT,
    FILE,
    THREADS,
    VARIABLE,
    VARIABLES,
    changes,
)
from repro_audit.storage.record import Header, Record
from repro_audit.storage.values import open_values
from repro_audit.target import parse
from repro_audit.trial.oracle import part
from repro_audit.trial.request import VALUES, Watch, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from repro_audit.analysis.tolerance import Tolerance
    from repro_audit.config import Options
    from repro_audit.experiment import Setting
    from repro_audit.report.progress import Progress
    from repro_audit.storage.fingerprint import Change
    from repro_audit.target import Target
    from repro_audit.trial.oracle import Trial, TrialOracle
    from repro_audit.trial.runner import Python

SAMPLE = 256
"""Elements of each outcome that a record keeps, spread evenly: enough to say how large a difference is."""
THIS_RUN, THE_RECORD = "this run", "the record"
_GIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A program's pinned run, under way of being recorded or compared."""

    audit: Audit
    floor: Trial
    """In an interpreter of its own, with a sample of each outcome's elements."""

    @property
    def oracle(self) -> TrialOracle:
        """What runs further trials."""
        return self.audit.oracle

    def watched(self) -> Trial:
        """The same run with every op and line watched; in a fresh interpreter, where a fork differs."""
        runs = self.floor.facts.runs
        window = Window(first=0, last=max(self.floor.facts.steps - 1, 0), loading=runs == 1)
        (trial,) = self.oracle.try_settings([({}, Watch(window=window))])
        if trial.digest != self.floor.digest and not self.oracle.fresh:
            (trial,) = self.oracle.try_settings([({}, Watch(window=window))], fresh=[True])
        return trial


@contextmanager
def _pinned(
    target: Target,
    options: Options,
    progress: Progress,
    *,
    instant: int | None = None,
    python: Python | None = None,
) -> Iterator[Pinned]:
    """Make a program's pinned run.

    Args:
        target: what is run.
        options: how.
        progress: shows it.
        instant: what the pinned clock shows, where it is to be that of another run.
        python: which interpreter runs it; this one where none is given.
    """
    with session(target, options, progress, python=python) as oracle:
        oracle.of_floor = Watch(sample=SAMPLE)
        if instant is not None:
            oracle.instant = instant
        audit = Audit(oracle, options, progress)
        yield Pinned(audit=audit, floor=audit.floor())


def record(
    target: Target,
    options: Options,
    progress: Progress,
    path: Path,
    *,
    instant: int | None = None,
    python: Python | None = None,
) -> model.Report | None:
    """Save a program's pinned run to a file, whole or not at all.

    Returns:
        Why nothing was saved: the program failed, trained nothing, or differs from itself. None where it was.

    Raises:
        UsageError: the file can not be written.
    """
    with _pinned(target, options, progress, instant=instant, python=python) as pinned:
        floor, audit = pinned.floor, pinned.audit
        report = replace(audit.report_of(floor), sources=())
        if floor.ended.status != "ok" or report.nothing_at_stake is not None:
            return report
        watched = pinned.watched()
        if watched.digest != floor.digest:
            return replace(report, inconclusive=_unsteady(floor, watched))
        root = pinned.oracle.isolation.root
        header = Header(
            version=files.VERSION,
            tool=__version__,
            spec=target.spec,
            mode=target.mode,
            argv=target.argv,
            seed=options.seed,
            steps=options.steps,
            until_epoch=options.until_epoch,
            instant=pinned.oracle.instant,
            losses=floor.facts.losses,
            digest=str(floor.digest),
            fingerprint=_fingerprint(floor, watched, root),
            files=files.shown_files(floor.facts.own_files, root),
        )
        try:
            files.write(path, header, trial=floor.directory, detailed=watched.directory, root=root)
        except OSError as error:
            raise UsageError(
                "the record can not be saved", where=str(path), why=error.strerror or str(error)
            ) from error
    return None


def _unsteady(floor: Trial, again: Trial) -> str:
    if again.ended.status != "ok":
        failure = again.facts.failure
        why = failure.what if failure else again.ended.exit
        return f"with every op and line watched, the program fails: {why}"
    diverging = part(floor, again)
    first = diverging.difference.first if diverging is not None else None
    where = f", first in {first.name} of step {first.step}" if first is not None else ""
    return (
        f"two runs with everything pinned differ{where}, so no run can stand for the program; `repro-audit check` "
        "finds out why"
    )


def _fingerprint(floor: Trial, watched: Trial, root: Path) -> dict[str, str]:
    """What a run ran on, with the files that it read and the state of its repository."""
    import hashlib

    found = dict(floor.facts.fingerprint)
    for name in floor.facts.own_files:
        path = root / name
        if path.is_file():
            found[f"{CODE} {name}"] = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    for directory in processes(watched.directory / DETAIL).values():
        found.update(_files_read(Detail.open(directory)))
    return {**found, **_repository(root)}


def _files_read(detail: Detail) -> dict[str, str]:
    """The digests of files as they were first opened for reading, but for those that the run had written itself."""
    import numpy as np

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
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    if not commit:
        return {}
    return {COMMIT: commit[:12], CLEAN: "yes" if changed else "no"}


def _git(directory: Path, *words: str) -> str:
    """What git answers; empty where it has no answer."""
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607 - the user's own
            cwd=directory,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


# Verifying


def verify(
    path: Path,
    target: Target | None,
    options: Options,
    progress: Progress,
    *,
    tolerance: Tolerance,
) -> model.Report:
    """Run a recorded program again, and compare.

    Args:
        path: of the record.
        target: what is run; None for what the record names.
        options: how; what decides about results is the record's.
        progress: shows the trials.
        tolerance: how far both may be apart.

    Raises:
        UsageError: the record can not be read, or its target is not to be run without being named.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="repro-audit-") as temporary:
        recorded = files.read(path, Path(temporary) / "record")
        header = recorded.header
        options = replace(
            options, seed=header.seed, steps=header.steps, until_epoch=header.until_epoch
        )
        parsed = target or _own_target(recorded)
        with _pinned(parsed, options, progress, instant=header.instant) as pinned:
            report = _verified(recorded, pinned, tolerance)
    seconds = round(time.monotonic() - started, 3)
    return replace(report, seconds=seconds)


def _own_target(recorded: Record) -> Target:
    """The target that a record names: only a file in this directory is run because a file says so."""
    header = recorded.header
    place = header.spec.rpartition(":")[0] if header.mode == "build" else header.spec
    inside = not Path(place).is_absolute() and ".." not in Path(place).parts
    module = Path(*place.split("."))
    there = (Path(place), module.with_suffix(".py"), module / "__init__.py")
    if not inside or header.mode == "command" or header.argv or not any(map(Path.is_file, there)):
        words = " ".join((header.spec, *header.argv))
        raise UsageError(
            "the record does not run by itself",
            where=recorded.name,
            why=f"it is of {words[:200]!r}, and only a file in this directory, without arguments, is run because a "
            "record names it",
            next_step=f"name it: repro-audit verify {recorded.name} TARGET",
        )
    return parse(header.spec)


def _verified(recorded: Record, pinned: Pinned, tolerance: Tolerance) -> model.Report:
    """The report of one run against a record."""
    floor, audit = pinned.floor, pinned.audit
    report = replace(audit.report_of(floor), sources=())
    if floor.ended.status != "ok":
        return report
    compared = model.Comparison(reference=recorded.name, other=THIS_RUN)
    a = _of_record(recorded, THE_RECORD)
    b = _of_trial(floor)
    found = comparison.compare(a, b, tolerance)
    if found.difference is None:
        within = comparison.within_in_words(found.within, tolerance)
        return _report(
            audit,
            floor,
            comparison.equal(a, b, found.within, tolerance),
            replace(compared, within=within),
        )
    watched = pinned.watched()
    root = pinned.oracle.isolation.root
    details = {name: Detail.open(place) for name, place in _processes(watched).items()}
    b = replace(
        b,
        run=_run(details),
        fingerprint=_fingerprint(floor, watched, root),
        files=files.shown_files(floor.facts.own_files, root),
    )
    known = {file for detail in details.values() for file in site_files(detail)}
    a = replace(a, run=_recorded_run(recorded, root, b, known))
    undone = _put_back(a, b, pinned, tolerance)
    entry = comparison.different(
        a, b, found.difference, repeated=watched.digest == floor.digest, undone=undone
    )
    return _report(audit, floor, entry, compared)


def _report(
    audit: Audit, floor: Trial, entry: model.SourceResult, compared: model.Comparison
) -> model.Report:
    return replace(audit.report_of(floor, sources=(entry,)), comparison=compared, further=())


def _of_record(recorded: Record, words: str) -> Side:
    header = recorded.header
    return Side(
        words=words,
        trace=recorded.trace,
        values=open_values(recorded.directory / files.VALUES),
        losses=header.losses,
        fingerprint=header.fingerprint,
        files=header.files,
    )


def _of_trial(trial: Trial) -> Side:
    return Side(
        words=THIS_RUN,
        trace=trial.trace,
        values=open_values(trial.directory / VALUES),
        losses=trial.facts.losses,
    )


def _processes(trial: Trial) -> dict[str, Path]:
    return processes(trial.directory / DETAIL)


def _run(details: Mapping[str, Detail]) -> Run | None:
    """The events of a run; None where none were recorded."""
    if MAIN not in details:
        return None
    return Run(
        main=details[MAIN],
        workers={name: detail for name, detail in details.items() if name != MAIN},
    )


def _recorded_run(recorded: Record, root: Path, other: Side, known: set[str]) -> Run | None:
    """The events of a record, with lines as the other run's files have them."""
    header = recorded.header
    here = known | {str(root / name) for name in other.files}
    return _run(
        {
            name: onto(placed(Detail.open(place), root, here), header.files, other.files, root)
            for name, place in processes(recorded.directory / DETAIL).items()
        }
    )


# What a changed field did


def _put_back(a: Side, b: Side, pinned: Pinned, tolerance: Tolerance) -> list[Change]:
    """The changes that make the run equal to the record when they alone are put back."""
    undone = []
    for change in changes(a.fingerprint, b.fingerprint):
        setting, variables = _as_it_was(change)
        if not setting and not variables:
            continue
        with _environment(variables):
            (trial,) = pinned.oracle.try_settings(
                [(setting, Watch(sample=SAMPLE))], fresh=[bool(variables)]
            )
        if trial.ended.status != "ok":
            continue
        if comparison.compare(a, _of_trial(trial), tolerance).difference is None:
            undone.append(change)
    return undone


def _as_it_was(change: Change) -> tuple[Setting, dict[str, str | None]]:
    """How to put a field back here: a level of a source, or a variable; neither where it can not be."""
    before = change.before
    if change.kind == VARIABLE and change.which in VARIABLES:
        return {}, {change.which: before}
    if (
        change.kind == THREADS
        and before is not None
        and re.fullmatch(r"[1-9]\d{0,2}", before, re.ASCII)
    ):
        return {"thread-count": before}, {}
    if change.kind == CAPABILITY and before is not None:
        lower = {"AVX2": AVX2, "DEFAULT": BASELINE, "NO AVX": BASELINE}.get(before)
        return ({"cpu-isa": lower}, {}) if lower else ({}, {})
    return {}, {}


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Start interpreters with other variables; None for one that is not set."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
