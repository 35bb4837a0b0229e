"""What a report says of the trials and the machine, beside its sources."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.report import model

if TYPE_CHECKING:
    from repro_audit.facts import Facts
    from repro_audit.oracle import Trial
    from repro_audit.trial.sandbox import Isolation


def failure(floor: Trial) -> model.TargetFailure:
    """How the target itself failed, with everything pinned."""
    failed = floor.facts.failure
    if failed is not None:
        return model.TargetFailure(
            what=failed.what,
            traceback=failed.traceback,
            why=failed.accepted,
            output=floor.ended.output,
        )
    return model.TargetFailure(
        what=f"the target's process {floor.ended.exit} before its training was over",
        why="a crash in native code, os._exit(), a signal, or the system's memory killer",
        next_step="run the program by itself; the end of its output is below",
        output=floor.ended.output,
    )


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
        cpu=_cpu_model(),
        threads=facts.threads or None,
        devices=("cpu", *devices),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def notes(floor: Trial, isolation: Isolation) -> tuple[str, ...]:
    """What the verdict does not cover."""
    unread = {text for text in floor.trace.strings if text.startswith("unreadable (")}
    unseen = sorted({*floor.facts.unseen, *unread})
    # Of an overlay, only what it does not cover.
    reason = (
        isolation.reason.partition("; ")[2] if isolation.kind == "overlay" else isolation.reason
    )
    return tuple(
        filter(
            None,
            (
                reason,
                f"not compared, since the contents can not be read: {', '.join(unseen)}"
                if unseen
                else "",
            ),
        )
    )


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
    return ", ".join(parts)
