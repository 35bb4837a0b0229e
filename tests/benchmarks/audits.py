"""What a whole audit costs, as a multiple of one plain fresh run of the same program."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Row

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
STEPS = 8
ALLOWED = {"clean_mlp": 2.5, "three_causes": 3.5}
"""The most that an audit of these samples may cost."""


def measure(repeats: int) -> list[Row]:
    """One row a sample: the median ratio over `repeats` pairs, each a plain run and an audit one after the other."""
    return [_row(name, allowed, repeats) for name, allowed in ALLOWED.items()]


def _row(name: str, allowed: float, repeats: int) -> Row:
    path = SAMPLES / f"{name}.py"
    ratios, trials = [], 0
    for _ in range(repeats):
        plain = _seconds(
            [
                sys.executable,
                str(Path(__file__).with_name("plain.py")),
                str(path),
                "build",
                str(STEPS),
            ]
        )
        audit, report = _audit(path)
        trials = len(report["trials"])
        ratios.append(audit / plain)
    return Row(
        what=f"full audit of {name}.py, {trials} trials",
        against="one plain fresh run",
        ratio=statistics.median(ratios),
        allowed=allowed,
    )


def _audit(path: Path) -> tuple[float, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        saved = Path(directory, "report.json")
        command = [sys.executable, "-m", "repro_audit", "check", f"{path}:build"]
        seconds = _seconds([*command, "--quiet", "--json", str(saved)])
        report: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
    return seconds, report


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=False, capture_output=True)
    return time.perf_counter() - started
