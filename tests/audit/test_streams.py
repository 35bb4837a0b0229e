"""The verdict decides the exit code, whoever reads what is printed; a report that can not be written is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.auditing import environment

COMMAND = f"{sys.executable} -m repro_audit sources"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, and say what `COMMAND` in it ended with."""
    return subprocess.run(
        ["/bin/bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.mark.parametrize(
    "line",
    [
        f"{COMMAND} | head -1",
        f"{COMMAND} | true",
        f"{COMMAND} 2>&-",
        f"{COMMAND} 2>/dev/full",
        f"{COMMAND} <&-",
    ],
)
def test_readers_that_leave_change_nothing(line: str) -> None:
    ended = shell(line)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "why"),
    [(f"{COMMAND} >/dev/full", "No space left"), (f"{COMMAND} >&-", "Bad file descriptor")],
)
def test_a_report_that_can_not_be_written_is_said(line: str, why: str) -> None:
    ended = shell(line)
    assert ended.returncode == 2
    assert "the report can not be written" in ended.stderr
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nor_is_it_said_where_nobody_can_be_told() -> None:
    ended = shell(f"{COMMAND} >/dev/full 2>&1")
    assert (ended.returncode, ended.stderr) == (2, "")


def test_errors_keep_their_exit_code_where_nobody_reads() -> None:
    assert shell(f"{sys.executable} -m repro_audit explain nonsense 2>&-").returncode == 2
