"""`--accept ID --reason TEXT`: kept in pyproject.toml, whose other contents stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from repro_audit.config import load
from repro_audit.errors import UsageError
from repro_audit.report.saving import write_whole
from repro_audit.sources import known

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def keep(ids: Iterable[str], reason: str, directory: Path) -> None:
    """Write down why sources are accepted, in the configuration that holds in a directory.

    Raises:
        UsageError: there is no such source, no reason is given, or the file can not be written.
    """
    chosen = [known(name, where="--accept").id for name in ids]
    if not chosen or not reason.strip():
        raise UsageError(
            f"no {'reason' if chosen else 'source'} is given",
            where="--accept" if chosen else "--reason",
            next_step='give both, for those who read the report: --accept ID --reason "…"',
        )
    path = load(directory).path or directory / "pyproject.toml"
    try:
        content = (
            tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
        )
        table: Any = content
        for name in ("tool", "repro-audit", "accept"):
            table = table.setdefault(name, tomlkit.table(is_super_table=name != "accept"))
        for each in chosen:
            table[each] = reason
        write_whole(path, tomlkit.dumps(content))
    except (OSError, ValueError, TOMLKitError) as error:
        raise UsageError(
            "the reason can not be written down",
            where=str(path),
            why=str(error),
            next_step=f'write it yourself, in [tool.repro-audit.accept]: {chosen[0]} = "{reason}"',
        ) from error
