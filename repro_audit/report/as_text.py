"""The terminal's page as plain text."""

from __future__ import annotations

import io

from rich.console import Console

from repro_audit.report import terminal
from repro_audit.report.model import Report

_WIDTH = 100


def render(report: Report) -> str:
    """The page with each finding whole: for a file, which has room."""
    return page(report, width=_WIDTH, verbose=True)


def page(report: Report, *, width: int, verbose: bool = False) -> str:
    """The page, without colours."""
    written = io.StringIO()
    console = Console(
        file=written, width=width, color_system=None, highlight=False, markup=False, emoji=False
    )
    terminal.print_report(report, console, verbose=verbose)
    return written.getvalue()
