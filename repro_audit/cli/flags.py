"""Options of the command line as `config` has them."""

from __future__ import annotations

from typing import Any

import typer

from repro_audit.config import FLAGS


def ids(incomplete: str) -> list[str]:
    """For the shell's completion: the sources' ids."""
    from repro_audit.sources import catalogue

    return [name for name in catalogue() if name.startswith(incomplete)]


def flag(name: str, *spelt: str, metavar: str | None = None) -> Any:
    """An option of `check` as `config` has it; None stands for one that was not given."""
    found = FLAGS[name]
    silent = found.default is None or found.default is False or found.default == ()
    return typer.Option(
        *spelt,
        min=found.minimum,
        max=found.maximum,
        metavar=metavar,
        autocompletion=ids if metavar == "ID" else None,
        help=found.help if silent else f"{found.help} (default: {found.default})",
    )
