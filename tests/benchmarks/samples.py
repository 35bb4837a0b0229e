"""Audits samples many times over and counts what is wrong: `python -m tests.benchmarks.samples [AUDITS] [PREFIX]`.

`python -m tests.benchmarks.samples 3` audits every sample and every twin three times in a row; `... 10 clean` those
whose names begin with `clean` ten times. An audit is wrong that overlooks a cause or accuses what is none. Audits share
their interpreters, as those of the test suite do.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.auditing import SAMPLES
from tests.samples import SAMPLES as TABLE
from tests.samples import Sample
from tests.sharing import Interpreters


def main(audits: int, prefix: str) -> int:
    """Print a line a sample; status 1 where anything was wrong."""
    total = 0
    with (
        tempfile.TemporaryDirectory() as temporary,
        Interpreters(Path(temporary), fresh=True) as shared,
    ):
        for sample in TABLE:
            if sample.name.startswith(prefix):
                wrong = [said for _ in range(audits) if (said := _wrong(sample, shared))]
                total += len(wrong)
                print(
                    f"{sample.name}: {len(wrong)} of {audits} audits are wrong", *wrong, flush=True
                )
    print(f"wrong in all: {total}")
    return 1 if total else 0


def _wrong(sample: Sample, shared: Interpreters) -> str:
    """What is wrong with an audit of a sample; empty where nothing is."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(SAMPLES / f"{sample.name}.py", directory)
        saved = Path(directory, "report")
        spec = f"{sample.name}.py:build"
        audited = shared.check(spec, cwd=Path(directory), saved=saved, baseline=False)
    return sample.wrong(audited.report) if audited.report else audited.terminal


if __name__ == "__main__":
    arguments = sys.argv[1:]
    raise SystemExit(main(int((arguments or ["3"])[0]), "".join(arguments[1:2])))
