"""What a report says of the trials and the machine, beside its sources."""

from __future__ import annotations

import platform
import re
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.findings import outlook
from repro_audit.isolation.sandbox import Isolation
from repro_audit.notebook import of_file
from repro_audit.probe.files import read_openings
from repro_audit.report import model
from repro_audit.storage.facts import Facts
from repro_audit.target import Target
from repro_audit.trial.fingerprint import cpu_model

if TYPE_CHECKING:
    from repro_audit.trial.oracle import Trial

TESTED_TORCH, TESTED_PYTHON = ((2, 8), (2, 14)), ((3, 10), (3, 13))
"""The oldest and the newest with which the tests ran; see `.ci/matrix`."""

MOST_FURTHER = 1_000
"""Times as many steps as were made are the most that are worth a hint."""


def failure(floor: Trial) -> model.TargetFailure:
    """How the target itself failed, with everything pinned."""
    failed = floor.facts.failure
    if failed is not None:
        return model.TargetFailure(
            what=failed.what,
            traceback=failed.traceback,
            why=failed.why,
            next_step=failed.next_step,
            output=floor.ended.output,
        )
    return model.TargetFailure(
        what=f"the target's process {floor.ended.exit} before its training was over",
        why="a crash in native code, os._exit(), a signal, or the system's memory killer",
        next_step="run the program by itself; the end of its output is below",
        output=floor.ended.output,
    )


def fresh_throughout(facts: Facts) -> tuple[str, ...]:
    """Say why no trial was forked, where the program itself makes that necessary."""
    names = ", ".join(facts.set_for_import)
    why = "before it imports PyTorch, so each trial has an interpreter of its own"
    return (f"fresh: the program sets {names} {why}",) if names else ()


def timed_out(floor: Trial) -> str | None:
    """Why nothing can be said, where the first run took too long."""
    if floor.ended.status != "timeout":
        return None
    return f"the first run {floor.ended.exit}; give it more time, or fewer --steps"


def record(trial: Trial) -> model.TrialRecord:
    """A trial's entry in the report."""
    return model.TrialRecord(
        id=trial.id,
        setting=trial.setting,
        status=model.TrialStatus(trial.ended.status),
        seconds=round(trial.ended.seconds, 3),
        digest=trial.digest,
    )


def environment(facts: Facts) -> model.Environment:
    """Where the audit was made."""
    devices = [
        f"cuda:{number} {name}" for number, name in enumerate(facts.cuda.split(", ")) if name
    ]
    return model.Environment(
        python=platform.python_version(),
        torch=facts.torch or None,
        cpu=facts.machines[0] if facts.machines else cpu_model(),
        threads=facts.threads or None,
        devices=("cpu", *devices),
        machines=facts.machines,
    )


def notes(floor: Trial, isolation: Isolation) -> tuple[str, ...]:
    """What the verdict does not cover."""
    texts = floor.trace.strings if floor.digest is not None else ()
    unread = {text for text in texts if text.startswith("unreadable (")}
    unseen = sorted({*floor.facts.unseen, *unread})
    return tuple(
        filter(
            None,
            (
                untested(floor.facts.torch, sys.version_info[:2]),
                isolation.reason,
                f"not compared, since the contents can not be read: {', '.join(unseen)}"
                if unseen
                else "",
            ),
        )
    )


def further(floor: Trial, target: Target, root: Path) -> tuple[str, ...]:
    """What a longer trial may come to that this one did not, and how to have one."""
    facts = floor.facts
    if not facts.steps or facts.ended:
        return ()
    openings = [
        opening
        for opening in read_openings(floor.directory / "files.jsonl")
        if opening.event == "open" and "w" in opening.mode
    ]
    seen = {opening.path for opening in openings}
    files = {*facts.own_files, *filter(None, (target.path,))}
    hints = outlook.unreached(
        {name: _text(root / name) for name in sorted(files)},
        target.function,
        written={name: name in seen for name in facts.written},
        opened={
            (_relative(opening.file, floor.root, root), opening.line)
            for opening in openings
            if opening.file is not None and opening.line is not None
        },
        root=root,
    )
    steps = f"with --steps {_further_steps(facts)}"
    unseen = f"but not {facts.within}; a second run may differ then"
    return tuple(f"{steps} {hint}, {unseen}" for hint in hints)


def _text(path: Path) -> str:
    notebook = of_file(path)
    if notebook is not None:
        return notebook.python
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _relative(file: str, *roots: str | Path) -> str:
    for root in roots:
        if Path(file).is_relative_to(root):
            return str(Path(file).relative_to(root))
    return file


def _further_steps(facts: Facts) -> int:
    """Steps that go a little beyond the end of an epoch, as far as its length is known; else several times as many."""
    if facts.batches_per_epoch and facts.batches_seen:
        epoch = ceil(facts.steps * facts.batches_per_epoch / facts.batches_seen)
        if facts.steps <= epoch <= MOST_FURTHER * facts.steps:
            return epoch + 2
    return 4 * facts.steps


def untested(torch: str, python: tuple[int, int]) -> str:
    """What of the versions in use was never tested; empty where all of it was."""
    of_torch = re.match(r"(\d+)\.(\d+)", torch)
    number = (int(of_torch[1]), int(of_torch[2])) if of_torch else TESTED_TORCH[0]
    outside = [
        f"{name} {found} ({_dotted(least)} to {_dotted(most)} were)"
        for name, found, version, (least, most) in (
            ("torch", torch, number, TESTED_TORCH),
            ("Python", _dotted(python), python, TESTED_PYTHON),
        )
        if not least <= version <= most
    ]
    return f"repro-audit was not tested with {' nor with '.join(outside)}" if outside else ""


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def coverage(facts: Facts) -> str:
    """The share of the data that a trial saw."""
    if not facts.steps:
        return ""
    per_epoch = f" (an epoch has {facts.batches_per_epoch})" if facts.batches_per_epoch else ""
    parts = [f"{facts.batches_seen} batches{per_epoch}"] if facts.batches_seen else []
    if facts.samples_seen:
        total = f" of {facts.samples_total}" if facts.samples_total else ""
        parts.append(f"{facts.samples_seen}{total} samples")
    parts.append(f"{facts.steps} steps")
    if facts.epochs:
        parts.append(f"{facts.epochs} epoch{'s' if facts.epochs != 1 else ''}")
    if facts.trains_itself and facts.loading_seconds:
        parts.append(f"the first one after {facts.loading_seconds:.1f} s")
    seen = ", ".join(parts)
    if facts.trains_itself:
        whole = f"--steps {_further_steps(facts)} looks further"
        seen += ": the whole program" if facts.ended else f"; {whole}"
    return seen
