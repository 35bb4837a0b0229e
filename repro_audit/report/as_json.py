"""The JSON format, schema version 1.

It has a model of its own, apart from the internal types, fixed by `schema.json`.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.report import text
from repro_audit.report.model import PROMISES

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro_audit.report.model import (
        Divergence,
        Fix,
        LevelResult,
        Location,
        Report,
        SourceResult,
        TrialRecord,
    )

SCHEMA_VERSION = 1
STDOUT = "-"
_STRING_LIMIT = 4_000
"""Characters of any string but a snippet."""

Json = Any


def schema() -> dict[str, Json]:
    """The JSON Schema (draft 2020-12) of every document that `document` makes."""
    source = resources.files(__package__).joinpath("schema.json")
    loaded: dict[str, Json] = json.loads(source.read_text(encoding="utf-8"))
    return loaded


def document(report: Report) -> dict[str, Json]:
    """The report as plain data."""
    decision = report.decision
    settings, environment = report.settings, report.environment
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "repro-audit", "version": report.version},
        "target": {
            "spec": _string(report.target.spec),
            "mode": report.target.mode,
            "argv": [_string(argument) for argument in report.target.argv],
        },
        "verdict": decision.verdict.value,
        "exit_code": decision.exit_code,
        "require": report.require.value,
        "scopes": {scope.value: status.value for scope, status in decision.scopes.items()},
        "covers": _covers(report),
        "settings": {
            "seed": settings.seed,
            "steps": settings.steps,
            "fresh": settings.fresh,
            "isolation": settings.isolation,
        },
        "environment": {
            "python": _string(environment.python),
            "torch": _optional(_string, environment.torch),
            "cpu": _string(environment.cpu),
            "threads": environment.threads,
            "devices": [_string(device) for device in environment.devices],
        },
        "sources": [_source(source) for source in report.sources],
        "unexplained": _optional(_divergence, report.unexplained),
        "trials": [_trial(trial) for trial in report.trials],
        "seconds": _number(report.seconds),
    }


def dumps(report: Report) -> str:
    """The document as ASCII text that any JSON reader accepts, with a line break at its end."""
    return json.dumps(document(report), indent=2, allow_nan=False) + "\n"


def write(report: Report, destination: str) -> None:
    """Write the document to a file, whole or not at all, or to stdout (`-`)."""
    content = dumps(report)
    if destination == STDOUT:
        sys.stdout.write(content)
        sys.stdout.flush()
    else:
        write_whole(Path(destination), content)


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader, or a crash, never sees half of it.

    A link is followed, an existing file keeps its permissions, and what is no regular file (a
    pipe, `/dev/stdout`) is written to as it is.
    """
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        path.write_text(content, encoding="utf-8")
        return
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{final.name[:100]}.{secrets.token_hex(4)}.part")
    with temporary.open("x", encoding="utf-8", newline="\n") as file:
        try:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _covers(report: Report) -> dict[str, Json]:
    tried = {scope: report.tried(scope) for scope in PROMISES}
    return {
        "sources": {
            scope.value: {"tried": each.tried, "of": each.of} for scope, each in tried.items()
        },
        "only_if": [_string(condition) for condition in report.conditions],
        "further": [_string(hint) for hint in report.further],
        "nothing_at_stake": _optional(_string, report.nothing_at_stake),
    }


def _source(source: SourceResult) -> dict[str, Json]:
    return {
        "id": source.id,
        "title": _string(source.title),
        "scope": source.scope.value,
        "status": source.status.value,
        "confidence": _optional(lambda confidence: confidence.value, source.confidence),
        "reason": _string(source.reason),
        "levels": [_level(level) for level in source.levels],
        "divergence": _optional(_divergence, source.divergence),
        "fix": _optional(_fix, source.fix),
    }


def _level(level: LevelResult) -> dict[str, Json]:
    return {"level": _string(level.level), "diverged": level.diverged, "trial": level.trial}


def _divergence(divergence: Divergence) -> dict[str, Json]:
    cause, size = divergence.cause, divergence.size
    return {
        "step": divergence.step,
        "phase": divergence.phase,
        "kind": divergence.kind.value,
        "name": _optional(_string, divergence.name),
        "op": _optional(_string, cause.op if cause else None),
        "module": _optional(_string, cause.module if cause else None),
        "location": _optional(_location, cause.location if cause else None),
        "max_abs": _number(size.max_abs) if size else None,
        "max_ulp": size.max_ulp if size else None,
        "mismatched": size.mismatched if size else None,
        "numel": size.numel if size else None,
    }


def _location(location: Location) -> dict[str, Json]:
    return {
        "file": _string(location.file),
        "cell": location.cell,
        "line": location.line,
        "function": _optional(_string, location.function),
        "code": _optional(_string, location.code),
    }


def _fix(fix: Fix) -> dict[str, Json]:
    snippet = text.bounded(fix.snippet, text.BLOCK_LIMIT)
    return {
        "summary": _string(fix.summary),
        "snippet": _encodable(snippet),
        "verified": fix.verified,
    }


def _trial(trial: TrialRecord) -> dict[str, Json]:
    return {
        "id": trial.id,
        "setting": {source: _string(level) for source, level in trial.setting.items()},
        "status": trial.status.value,
        "seconds": _number(trial.seconds),
        "digest": trial.digest,
    }


def _optional(convert: Callable[[Any], Json], value: object | None) -> Json:
    return None if value is None else convert(value)


def _string(content: str) -> str:
    return _encodable(text.bounded(content, _STRING_LIMIT))


def _encodable(content: str) -> str:
    """Lone surrogates (undecodable file names hold them, strict readers refuse them) as escapes."""
    return content.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))
