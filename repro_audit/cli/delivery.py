"""Where a report goes: to the reader, to the files that were asked for, and to GitHub where it runs the audit."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.report import formats, github, markdown, saving, terminal
from repro_audit.report.style import TerminalStyle, rows, words

if TYPE_CHECKING:
    from rich.console import Console

    from repro_audit.config import Check
    from repro_audit.report.model import Report


def deliver(report: Report, asked: Check) -> None:
    """Save the report as asked, and print it; what can not be saved does not keep it from being printed.

    Raises:
        UsageError: a report can not be saved.
    """
    try:
        formats.save(report, asked.outputs)
    finally:
        if any(output.destination == saving.STDOUT for output in asked.outputs):
            _print(report, asked, terminal.stderr_console())
        elif _on_github():
            _print_on_github(report, asked)
        else:
            _print(report, asked, terminal.stdout_console())
        if _on_github():
            _summarise(report)


def _print(report: Report, asked: Check, console: Console) -> None:
    if asked.quiet:
        look = TerminalStyle.of(console)
        terminal.print_whole([terminal.verdict(report, look)], console, look)
    else:
        terminal.print_report(report, console, verbose=asked.verbose)
        if next_step := _next_step(report, asked):
            look = TerminalStyle.of(console)
            next_row = rows([("next", words(next_step))], width=terminal.END_WIDTH)
            terminal.print_whole([next_row], console, look)


def _next_step(report: Report, asked: Check) -> str:
    """How to have CI keep what holds, where neither a configuration nor CI is at work; else empty."""
    at_work = asked.options.origin or os.environ.get("CI")
    audited = report.comparison is None and report.target.mode != "command"
    if report.exit_code or at_work or not audited:
        return ""
    target = shlex.join((report.target.spec, *report.target.argv))
    return f"repro-audit init {target}  writes a check like this one for CI"


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _print_on_github(report: Report, asked: Check) -> None:
    """The page, in which GitHub is to look for no commands, and then the annotations."""
    token = secrets.token_hex(16)
    sys.stdout.write(f"::stop-commands::{token}\n")
    _print(report, asked, terminal.stdout_console())
    sys.stdout.write(f"::{token}::\n")
    saving.write(github.render(report, _below_the_repository()), saving.STDOUT)


def _below_the_repository() -> str:
    """The working directory, as annotations name files: relative to the root of the repository."""
    here, root = Path.cwd(), os.environ.get("GITHUB_WORKSPACE")
    return str(here.relative_to(root)) if root and here.is_relative_to(root) else ""


def _summarise(report: Report) -> None:
    """Append to the job's summary, which the audit does not depend on."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as summary:
            summary.write(markdown.render(report))
    except OSError as error:
        sys.stderr.write(f"repro-audit: the job's summary can not be written: {error}\n")
