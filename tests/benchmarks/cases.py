"""Audits the programs of `tests/cases` many times over: `python -m tests.benchmarks.cases [AUDITS] [PREFIX]`.

`python -m tests.benchmarks.cases 3` makes every audit three times in a row. Audits share their interpreters, as those
of the test suite do.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.sharing import Interpreters
from tests.truths import PROGRAMS, TRUTHS, Truth


def main(audits: int, prefix: str) -> int:
    """Print a line an audit; status 1 where anything was wrong."""
    total = 0
    with (
        tempfile.TemporaryDirectory() as temporary,
        Interpreters(Path(temporary), fresh=True) as shared,
    ):
        for truth in TRUTHS:
            if not truth.id.startswith(prefix):
                continue
            if truth.missing:
                print(f"{truth.id}: not exercised, it needs {', '.join(truth.missing)}", flush=True)
                continue
            wrong = [said for _ in range(audits) if (said := _wrong(truth, shared))]
            total += len(wrong)
            print(f"{truth.id}: {len(wrong)} of {audits} audits are wrong", *wrong, flush=True)
    print(f"wrong in all: {total}")
    return 1 if total else 0


def _wrong(truth: Truth, shared: Interpreters) -> list[str]:
    """What is wrong with an audit; empty where nothing is."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        shutil.copytree(PROGRAMS / truth.case, tree)
        audited = shared.check(
            truth.target,
            *truth.options,
            cwd=tree,
            saved=Path(directory, "report"),
            baseline=truth.baseline,
        )
    return truth.wrong(audited)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    raise SystemExit(main(int((arguments or ["3"])[0]), "".join(arguments[1:2])))
