"""Prints the table: `python -m tests.benchmarks`; with `--quick`, fewer repeats.

A ratio above what is allowed is marked, and ends with status 1 except under `--quick`, whose few repeats prove little.
"""

from __future__ import annotations

import argparse

from tests.benchmarks import audits, memory, ops, pinpoint, probe
from tests.benchmarks.table import render


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    rows = [
        *audits.measure(1 if quick else 5),
        *probe.measure(3 if quick else 9),
        *ops.measure(1 if quick else 5),
        *pinpoint.measure(),
        *memory.measure(*(memory.SMALL if quick else memory.BILLION)),
    ]
    print(render(rows))
    missed = [row for row in rows if not row.met]
    for row in missed:
        print(f"above what is allowed: {row.what}: {row.ratio:.2f}x")
    return 1 if missed and not quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
