"""What a whole audit costs, as a multiple of one plain fresh run of the same program."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.auditing import environment
from tests.benchmarks.table import Row

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
STEPS = 8
ALLOWED = {"clean_mlp": 3.0, "three_causes": 4.2}
"""The most that an audit of these samples may cost: with all sources, and of each cause its line."""


def measure(repeats: int) -> list[Row]:
    """One row a sample: the median ratio over `repeats` pairs, each a plain run and an audit one after the other."""
    rows = [_row(name, allowed, repeats) for name, allowed in ALLOWED.items()]
    return [*rows, _script_row(repeats)] if repeats > 1 else rows


def _script_row(repeats: int) -> Row:
    """The audit of a script against that of the same program as a function: the median ratio of pairs."""
    pairs = [
        (_audit("scripts/clean_mlp.py"), _audit("clean_mlp.py", ":build")) for _ in range(repeats)
    ]
    trials = pairs[-1][0][1]
    return Row(
        what=f"full audit of clean_mlp.py as a script, {trials} trials",
        against="that of its build()",
        ratio=statistics.median(script[0] / build[0] for script, build in pairs),
        allowed=1.2,
    )


def _audit(file: str, function: str = "") -> tuple[float, int]:
    """Seconds of an audit, and its trials, in a new tree."""
    with tempfile.TemporaryDirectory() as directory:
        tree, saved = Path(directory, "tree"), Path(directory, "saved")
        tree.mkdir()
        name = shutil.copy(SAMPLES / file, tree)
        check = [sys.executable, "-m", "repro_audit", "check", "--quiet", "--json", str(saved)]
        seconds = _seconds([*check, f"{Path(name).name}{function}"], tree)
        return seconds, len(json.loads(saved.read_text(encoding="utf-8"))["trials"])


def _row(name: str, allowed: float, repeats: int) -> Row:
    ratios, trials = [], 0
    for _ in range(repeats):
        plain, audit, trials = _pair(name)
        ratios.append(audit / plain)
    return Row(
        what=f"full audit of {name}.py, {trials} trials",
        against="one plain fresh run",
        ratio=statistics.median(ratios),
        allowed=allowed,
    )


def _pair(name: str) -> tuple[float, float, int]:
    """Seconds of a plain run and of an audit, and its trials; both in new trees, since a plain run may leave files."""
    plain_script = str(Path(__file__).with_name("plain.py"))
    with tempfile.TemporaryDirectory() as directory:
        one = Path(directory)
        shutil.copy(SAMPLES / f"{name}.py", one)
        plain = _seconds([sys.executable, plain_script, f"{name}.py", "build", str(STEPS)], one)
    return (plain, *_audit(f"{name}.py", ":build"))


def _seconds(command: list[str], cwd: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment(), check=False, capture_output=True)
    return time.perf_counter() - started
