"""Records from end to end: a pinned run is saved, run again and compared with, or compared with another one.

A record is a trace of the program with everything pinned, the same with every op and line watched, and what it ran on.
`verify` and `diff` are the audit's comparison with one side, or both, read from a file.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit import __version__
from repro_audit.analysis.compare import Difference
from repro_audit.analysis.moved_lines import site_files
from repro_audit.analysis.tolerance import Tolerance
from repro_audit.auditing import Audit
from repro_audit.config import Options
from repro_audit.errors import UsageError
from repro_audit.experiment import Setting
from repro_audit.findings import comparison, sides, summary
from repro_audit.findings.comparison import Side
from repro_audit.replacements import environment
from repro_audit.report import model
from repro_audit.report.progress import Progress
from repro_audit.session import session
from repro_audit.source import Scope, Source
from repro_audit.storage import record as files
from repro_audit.storage.facts import of_rank
from repro_audit.storage.fingerprint import THREADS, VARIABLE, VARIABLES, Change, changes
from repro_audit.storage.record import Header, Record
from repro_audit.target import Target, parse
from repro_audit.trial.oracle import Trial, TrialOracle, part
from repro_audit.trial.request import Watch, Window
from repro_audit.trial.runner import Python

if TYPE_CHECKING:
    from repro_audit.variation import Variation

SAMPLE = 512
"""Elements of each outcome that a record keeps, spread evenly: enough to say how large a difference is."""
THE_RECORD = "the record"
_COUNT, _PLAIN = r"[1-9]\d{0,2}", r"[ -~]{0,200}"


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
        """The same run with every op and line watched, unless nobody wants them; fresh, where a fork differs."""
        runs = self.floor.facts.runs
        window = Window(first=0, last=max(self.floor.facts.steps - 1, 0), loading=runs == 1)
        watch = Watch(window=window if self.audit.options.pinpoint else None)
        (trial,) = self.oracle.try_settings([({}, watch)])
        if trial.digest != self.floor.digest and not self.oracle.fresh:
            (trial,) = self.oracle.try_settings([({}, watch)], fresh=[True])
        return trial


@contextmanager
def _pinned(
    target: Target,
    options: Options,
    progress: Progress,
    *,
    instant: int | None = None,
    python: Python | None = None,
    warm: bool = False,
) -> Iterator[Pinned]:
    """Make a program's pinned run.

    Args:
        target: what is run.
        options: how.
        progress: shows it.
        instant: what the pinned clock shows, where it is to be that of another run.
        python: which interpreter runs it; this one where none is given.
        warm: a further run is made in any case, for which an interpreter is to begin beside this one.
    """
    with session(target, options, progress, python=python) as oracle:
        oracle.of_floor = Watch(sample=SAMPLE)
        if instant is not None:
            oracle.instant = instant
        if warm and not oracle.fresh:
            oracle.runner.warm([oracle.environment({})])
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
) -> model.Report:
    """Save a program's pinned run to a file, whole or not at all.

    Returns:
        A report without sources. Unless its exit code is 0, nothing was saved, and it says why: the program failed,
        trained nothing, or differs from itself.

    Raises:
        UsageError: the file can not be written.
    """
    started = time.monotonic()
    with _pinned(target, options, progress, instant=instant, python=python, warm=True) as pinned:
        floor, audit = pinned.floor, pinned.audit
        report = replace(
            audit.report_of(floor),
            sources=(),
            seconds=round(time.monotonic() - started, 3),
            comparison=model.Comparison(reference=str(path), other=sides.THIS_RUN),
        )
        if report.exit_code:
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
            isolation=pinned.oracle.isolation.kind,
            instant=pinned.oracle.instant,
            losses=floor.facts.losses,
            digest=str(floor.digest),
            fingerprint=sides.fingerprint(floor, watched, pinned.oracle.target, root),
            files=sides.program(floor, pinned.oracle.target, root),
        )
        try:
            files.write(path, header, trial=floor.directory, detailed=watched.directory, root=root)
        except OSError as error:
            raise UsageError(
                "the record can not be saved", where=str(path), why=error.strerror or str(error)
            ) from error
        return replace(report, trials=tuple(map(summary.record, pinned.oracle.trials.values())))


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
            next_step=f"if that is what you want to run: repro-audit verify {recorded.name} {words[:200]}",
        )
    return parse(header.spec)


def _verified(recorded: Record, pinned: Pinned, tolerance: Tolerance) -> model.Report:
    """The report of one run against a record."""
    floor, audit = pinned.floor, pinned.audit
    compared = model.Comparison(reference=recorded.name, other=sides.THIS_RUN)
    if floor.ended.status != "ok":
        return replace(audit.report_of(floor), sources=(), comparison=compared)
    a = sides.of_record(recorded, THE_RECORD)
    b = sides.of_trial(floor)
    found = comparison.compare(a, b, tolerance)
    if found.difference is None:
        within = comparison.within_in_words(found.within, tolerance)
        return _report(
            audit,
            floor,
            comparison.equal(a, b, found.within, tolerance),
            replace(compared, within=within),
            recorded.header,
        )
    watched = pinned.watched()
    root = pinned.oracle.isolation.root
    rank = _rank(found.difference)
    details = sides.events_of_trial(watched, rank)
    b = replace(
        b,
        fingerprint=sides.fingerprint(floor, watched, pinned.oracle.target, root),
        files=sides.program(floor, pinned.oracle.target, root),
    )
    known = {file for detail in details.values() for file in site_files(detail)}
    a, b = sides.with_runs(a, b, sides.events_of_record(recorded, rank, root, b, known), details)
    undone = _put_back(a, b, pinned, tolerance)
    entry = comparison.different(
        a, b, found.difference, repeated=watched.digest == floor.digest, undone=undone
    )
    return _report(audit, floor, entry, compared, recorded.header)


def _rank(difference: Difference) -> int:
    """Of several processes that train together, the one that is first to differ."""
    return of_rank(difference.first.name)[0] or 0


def _report(
    audit: Audit,
    floor: Trial,
    entry: model.SourceResult,
    compared: model.Comparison,
    header: Header,
) -> model.Report:
    report = audit.report_of(floor, sources=(entry,))
    tools = f"version {header.tool} of repro-audit made the record, and may pin other things than {__version__}"
    notes = (*report.notes, *([tools] if header.tool != __version__ else []))
    return replace(report, comparison=compared, further=(), notes=notes)


# What a changed field did


def _put_back(a: Side, b: Side, pinned: Pinned, tolerance: Tolerance) -> Change | None:
    """The likeliest change that makes the run equal to the record when it alone is put back; None where none does."""
    for change in changes(a.fingerprint, b.fingerprint):
        setting, variables = _as_it_was(change, pinned.oracle.sources)
        if not setting and not variables:
            continue
        with environment(variables):
            (trial,) = pinned.oracle.try_settings(
                [(setting, Watch(sample=SAMPLE))], fresh=[bool(variables)]
            )
        if trial.ended.status != "ok":
            continue
        if comparison.compare(a, sides.of_trial(trial), tolerance).difference is None:
            return change
    return None


def _as_it_was(
    change: Change, sources: Mapping[str, Source]
) -> tuple[Setting, dict[str, str | None]]:
    """How to put a field back here: a level of a source, or a variable; neither where it can not be."""
    before = change.before
    if before is not None and not re.fullmatch(_PLAIN, before, re.ASCII):
        return {}, {}  # whatever it is, no variable has it
    if change.kind == VARIABLE and change.which in VARIABLES:
        return {}, {change.which: before}
    levels = {
        name: level
        for name, source in sources.items()
        if before is not None and (level := source.as_recorded(change.kind, before)) is not None
    }
    return levels, {}


# Comparing two records


def diff(path: Path, other: Path, *, tolerance: Tolerance) -> model.Report:
    """Compare two records; nothing is run.

    Raises:
        UsageError: one of them can not be read.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="repro-audit-") as temporary:
        a, b = (
            files.read(each, Path(temporary) / side) for side, each in (("a", path), ("b", other))
        )
        report = _differ(a, b, tolerance, words=(a.name, b.name), trials=())
    return replace(report, seconds=round(time.monotonic() - started, 3))


def _differ(
    recorded: Record,
    other: Record,
    tolerance: Tolerance,
    *,
    words: tuple[str, str],
    trials: tuple[model.TrialRecord, ...],
) -> model.Report:
    """The report of two records, by what to call them."""
    root = Path.cwd()
    a, b = sides.of_record(recorded, words[0]), sides.of_record(other, words[1])
    found = comparison.compare(a, b, tolerance)
    compared = model.Comparison(reference=a.words, other=b.words)
    if found.difference is None:
        within = comparison.within_in_words(found.within, tolerance)
        compared = replace(compared, within=within)
        entry = comparison.equal(a, b, found.within, tolerance)
    else:
        rank = _rank(found.difference)
        ours, theirs = (sides.events_of_record(each, rank, root, b) for each in (recorded, other))
        a, b = sides.with_runs(a, b, ours, theirs)
        entry = comparison.different(a, b, found.difference, repeated=True)
    header, ran_on = other.header, other.header.fingerprint
    threads = ran_on.get(THREADS, "")
    return model.Report(
        target=model.Target(spec=header.spec, mode=header.mode, argv=header.argv),
        require=Scope.RERUN,
        settings=model.Settings(
            seed=header.seed, steps=header.steps, fresh=False, isolation=header.isolation
        ),
        environment=model.Environment(
            python=ran_on.get("Python", ""),
            torch=ran_on.get("torch"),
            cpu=ran_on.get("CPU", ""),
            threads=int(threads) if re.fullmatch(_COUNT, threads, re.ASCII) else None,
            devices=("cpu", *filter(None, (ran_on.get("GPU"),))),
        ),
        sources=(entry,),
        trials=trials,
        seconds=0.0,
        comparison=compared,
        notes=_other_settings(recorded.header, header),
    )


def _other_settings(a: Header, b: Header) -> tuple[str, ...]:
    """What both runs were asked for that is not the same."""
    asked = [
        f"{name} {ours} against {theirs}"
        for name, ours, theirs in (
            ("target", " ".join((a.spec, *a.argv)), " ".join((b.spec, *b.argv))),
            ("seed", a.seed, b.seed),
            ("steps", a.steps, b.steps),
            ("until-epoch", a.until_epoch, b.until_epoch),
            ("repro-audit", a.tool, b.tool),
        )
        if ours != theirs
    ]
    return (f"the two were not asked for the same: {', '.join(asked)}",) if asked else ()


# One thing varied


def vary(
    target: Target,
    variation: Variation,
    options: Options,
    progress: Progress,
    *,
    tolerance: Tolerance,
) -> model.Report:
    """Run a program twice, the second time with one thing changed, and compare.

    Raises:
        UsageError: the thing can not be changed so.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="repro-audit-") as temporary:
        a, b = (Path(temporary) / f"{side}{files.SUFFIX}" for side in "ab")
        one = record(target, options, progress, a)
        if one.exit_code:
            return one
        first = files.read(a, Path(temporary) / "a")
        with variation.in_force(target, Path(temporary)) as (varied, python):
            two = record(varied, options, progress, b, instant=first.header.instant, python=python)
        if two.exit_code:
            return replace(two, notes=(f"this was the run {variation.words}", *two.notes))
        second = files.read(b, Path(temporary) / "b")
        fields = first.header.fingerprint, second.header.fingerprint
        named = _in_words(variation, *fields)
        words = ("the run as it is", f"the run {named}")
        trials = [
            replace(trial, id=f"{side}-{trial.id}")
            for side, report in (("a", one), ("b", two))
            for trial in report.trials
        ]
        report = _differ(first, second, tolerance, words=words, trials=tuple(trials))
    return replace(report, seconds=round(time.monotonic() - started, 3))


def _in_words(variation: Variation, reference: Mapping[str, str], ran_on: Mapping[str, str]) -> str:
    """What was varied; of another interpreter, what tells it from this one."""
    if variation.kind != "python":
        return variation.words
    name = next(
        (each for each in ("torch", "Python") if ran_on.get(each) != reference.get(each)), None
    )
    return variation.words if name is None else f"with {name} {ran_on.get(name)}"
