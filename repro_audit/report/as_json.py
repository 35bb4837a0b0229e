"""The JSON format, schema version 2: the whole model, from which `read` makes the same report again.

`schema.json` fixes it. All that version 1 had is there under the same keys, and means the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any

from repro_audit.errors import UsageError
from repro_audit.report import text
from repro_audit.report.model import PROMISES, Divergence, Outcome, Report
from repro_audit.storage import border

SCHEMA_VERSION = 2
_STRING_LIMIT = 4_000
"""Characters of any string but a block."""
_BLOCKS = {"snippet", "traceback", "output"}
_SAVE = "give a file that `repro-audit check --json FILE` saved"

Json = Any


def schema() -> dict[str, Json]:
    """The JSON Schema (draft 2020-12) of every document that `document` makes."""
    source = resources.files(__package__).joinpath("schema.json")
    loaded: dict[str, Json] = json.loads(source.read_text(encoding="utf-8"))
    return loaded


def document(report: Report) -> dict[str, Json]:
    """The report as plain data: its model, under the keys of its fields, and what follows from it."""
    decision, plain = report.decision, _plain(report)
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "repro-audit", "version": plain.pop("version")},
        "target": plain.pop("target"),
        "verdict": decision.verdict.value,
        "exit_code": decision.exit_code,
        "require": plain.pop("require"),
        "scopes": {scope.value: status.value for scope, status in decision.scopes.items()},
        "covers": _covers(report),
        **plain,
    }


def render(report: Report) -> str:
    """The document as ASCII text that any JSON reader accepts, with a line break at its end."""
    return json.dumps(document(report), indent=2, allow_nan=False) + "\n"


def read(path: str | Path) -> Report:
    """A saved report, of this version of the schema or of version 1.

    Raises:
        UsageError: the file can not be read, or is no report that this version knows.
    """
    where = str(path)
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError("the report can not be read", where=where, why=str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "this file is no report", where=where, why=f"it is no JSON: {error}", next_step=_SAVE
        ) from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version not in (1, SCHEMA_VERSION):  # whatever it is: a set asks for its hash
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise UsageError(
            "this file is no report that this version of repro-audit reads",
            where=where,
            why=f"it has the schema version {version}" if newer else "it has no schema version",
            next_step="update repro-audit" if newer else _SAVE,
        )
    try:
        if version == 1:
            found = _of_version_1(found)
        report: Report = border.read(Report, {**found, "version": found["tool"]["version"]})
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise UsageError(
            "this file is no whole report", where=where, why=str(error), next_step=_SAVE
        ) from error
    return report


def _of_version_1(found: dict[str, Json]) -> dict[str, Json]:
    """A document of version 1 as one of version 2, with what version 1 left out left open."""
    covers = found["covers"]
    conditions = iter(covers["only_if"])
    sources = [
        {
            **source,
            "divergence": _divergence_of_version_1(source["divergence"]),
            "condition": next(conditions, "") if source["status"] == "delegated" else "",
        }
        for source in found["sources"]
    ]
    untold = "the report was saved in version 1, which does not say why"
    failed = found["verdict"] == Outcome.TARGET_FAILED.value
    # Of the promises, only this one can be open without a source that is.
    errors = any(source["status"] == "error" for source in sources)
    open_rerun = found["verdict"] == Outcome.INCONCLUSIVE.value and not errors
    return {
        **found,
        "sources": sources,
        "unexplained": _divergence_of_version_1(found["unexplained"]),
        "further": covers["further"],
        "nothing_at_stake": covers["nothing_at_stake"],
        "inconclusive": untold if open_rerun and not covers["nothing_at_stake"] else None,
        "failure": {"what": "the target failed by itself", "why": untold} if failed else None,
    }


def _divergence_of_version_1(found: dict[str, Json] | None) -> dict[str, Json] | None:
    """The cause and the size, of which version 1 has the parts alone."""
    if found is None:
        return None
    cause = {"what": "", "step": found["step"] or 0, "phase": found["phase"] or ""}
    cause |= {name: found[name] for name in ("op", "module", "location")}
    size = {name: found[name] for name in ("max_abs", "max_ulp", "mismatched", "numel")}
    return {
        **found,
        "cause": cause if any(cause[name] for name in ("op", "module", "location")) else None,
        "size": size if size["numel"] is not None else None,
    }


def _covers(report: Report) -> dict[str, Json]:
    tried = {scope: report.tried(scope) for scope in PROMISES}
    return {
        "sources": {
            scope.value: {"tried": each.tried, "of": each.of} for scope, each in tried.items()
        },
        "only_if": _plain(report.conditions),
        "further": _plain(report.further),
        "nothing_at_stake": _plain(report.nothing_at_stake),
    }


def _plain(value: Any, limit: int = _STRING_LIMIT) -> Json:
    """Dataclasses as mappings of their fields, texts bounded, numbers that are not finite as texts."""
    if is_dataclass(value):
        found = {
            each.name: _plain(
                getattr(value, each.name),
                text.BLOCK_LIMIT if each.name in _BLOCKS else _STRING_LIMIT,
            )
            for each in fields(value)
        }
        return found | _parts(found) if isinstance(value, Divergence) else found
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return value.value if isinstance(value, Enum) else _string(value, limit)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parts(divergence: dict[str, Json]) -> dict[str, Json]:
    """The parts of a cause and of a size that version 1 has in their place."""
    cause, size = divergence["cause"] or {}, divergence["size"] or {}
    return {
        **{name: cause.get(name) for name in ("op", "module", "location")},
        **{name: size.get(name) for name in ("max_abs", "max_ulp", "mismatched", "numel")},
    }


def _string(content: str, limit: int = _STRING_LIMIT) -> str:
    """Bounded; lone surrogates (undecodable file names hold them, strict readers refuse them) as escapes."""
    return text.bounded(content, limit).encode("utf-8", "backslashreplace").decode("utf-8")
