"""The picture of a report in the README: `python -m tests.picture` audits `three_causes.py` and draws it anew."""

from __future__ import annotations

import html
import os
import re
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


def rows(picture: str) -> list[str]:
    """What a picture shows, row by row; numbers and bars, which differ from audit to audit, as signs."""
    text = html.unescape(picture).replace("\xa0", " ")
    found: dict[float, list[tuple[float, str]]] = {}
    for x, y, shown in re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', text):
        found.setdefault(float(y), []).append((float(x), shown))
    lines = (" ".join(shown for _, shown in sorted(found[y])) for y in sorted(found))
    plain = (re.sub(r"[▁-█·]+", "~", re.sub(r"\d[\d.e+-]*", "#", line)) for line in lines)
    return [" ".join(line.split()) for line in plain]


def lacks(picture: str, report: Report) -> list[str]:
    """What a report prints, and the picture does not show; but for what hangs on the machine's instruction set."""
    shown = rows(picture)
    return [
        row for row in rows(drawn(report)) if row not in shown and not row.startswith("portable")
    ]


if __name__ == "__main__":
    os.chdir(SAMPLES)
    PICTURE.write_text(drawn(audit("three_causes.py:build", progress=True)), encoding="utf-8")
