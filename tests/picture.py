"""The picture of a report in the README: `python -m tests.picture` audits `three_causes.py` and draws it anew."""

from __future__ import annotations

import os
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import MONOKAI

from repro_audit import audit
from repro_audit.report import terminal
from repro_audit.report.style import TerminalStyle
from tests.auditing import REPOSITORY, SAMPLES

if TYPE_CHECKING:
    from repro_audit.report.model import Report

PICTURE = REPOSITORY / ".github" / "report.svg"
_WIDTH = 80


def drawn(report: Report) -> str:
    """What a terminal of 80 columns shows, as SVG."""
    console = Console(
        record=True,
        file=StringIO(),
        width=_WIDTH,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(terminal.render(report, TerminalStyle(width=_WIDTH)))
    title = f"$ repro-audit check {report.target.spec}"
    return console.export_svg(title=title, unique_id="report", theme=MONOKAI)


if __name__ == "__main__":
    os.chdir(SAMPLES)
    PICTURE.write_text(drawn(audit("three_causes.py:build", progress=True)), encoding="utf-8")
