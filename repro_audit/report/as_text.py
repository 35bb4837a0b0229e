"""The terminal's page as plain text, with each finding whole: for a file, which has room."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from repro_audit.report import terminal

if TYPE_CHECKING:
    from repro_audit.report.model import Report

_WIDTH = 100


def render(report: Report) -> str:
    """The page, without colours."""
    page = io.StringIO()
    console = Console(
        file=page, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False
    )
    terminal.print_report(report, console, verbose=True)
    return page.getvalue()
