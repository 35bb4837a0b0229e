"""Audits every clean sample many times over and counts false accusations: `python -m tests.benchmarks.clean [N]`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests import samples
from tests.auditing import SAMPLES, check

CLEAN = [sample.name for sample in samples.SAMPLES if sample.name.startswith("clean")]


def main(audits: int) -> int:
    """Print a line a sample; status 1 where anything was accused."""
    accused = 0
    for name in CLEAN:
        wrong = sum(_is_accused(name) for _ in range(audits))
        accused += wrong
        print(f"{name}: {wrong} of {audits} audits accuse a source")
    return 1 if accused else 0


def _is_accused(name: str) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(SAMPLES / f"{name}.py", directory)
        audited = check(
            f"{name}.py:build", cwd=Path(directory), saved=Path(directory, "report"), baseline=False
        )
    return bool(audited.broke or audited.exit_code or audited.report["unexplained"])


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
