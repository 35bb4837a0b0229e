"""One trial in this process: `python -m tests.one_trial DIRECTORY TARGET [ID=LEVEL ...] [--window LAST]`.

The trial's directory is kept in DIRECTORY, which is made, and its trace is printed; with `--window`, also the detailed
events up to the step LAST. A `breakpoint()` in the target, in a source or in the probe stops here.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> None:
    """Write the request, then begin anew to obey it: a process that has imported NumPy can enter no overlay."""
    parser = argparse.ArgumentParser(prog="python -m tests.one_trial")
    parser.add_argument("directory", type=Path)
    parser.add_argument("target", nargs="?")
    parser.add_argument("levels", nargs="*", metavar="ID=LEVEL")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--window", type=int, metavar="LAST")
    asked = parser.parse_args()
    if asked.target is None:
        sys.exit(obey(asked.directory))
    levels = dict(level.split("=", 1) for level in asked.levels)
    trial, variables = request(
        asked.directory, asked.target, levels, steps=asked.steps, window=asked.window
    )
    os.execve(  # noqa: S606 - our own interpreter
        sys.executable,
        [sys.executable, "-m", "tests.one_trial", str(trial)],
        {**os.environ, **variables},
    )


def request(
    directory: Path, spec: str, levels: dict[str, str], *, steps: int, window: int | None
) -> tuple[Path, dict[str, str]]:
    """Write a request as an audit would; the trial's directory, and what it needs in its environment."""
    from repro_audit.isolation.sandbox import plan_isolation
    from repro_audit.sources import catalogue
    from repro_audit.target import parse
    from repro_audit.trial.oracle import TrialOracle
    from repro_audit.trial.request import Watch, Window
    from repro_audit.trial.runner import Runner

    directory.mkdir(parents=True)
    oracle = TrialOracle(
        runner=Runner(side_by_side=1, timeout=600, temporary=directory),
        isolation=plan_isolation(Path.cwd(), [directory]),
        sources=catalogue(),
        target=parse(spec),
        seed=0,
        steps=steps,
        fresh=True,
    )
    watch = Watch(window=None if window is None else Window(first=0, last=window))
    trial = oracle._request(levels, watch)
    trial.save()
    return trial.directory, dict(oracle.environment(levels))


def obey(directory: Path) -> int:
    """Run the trial of a directory, and print what it left."""
    from repro_audit.trial.interpreter import run
    from repro_audit.trial.request import FACTS, TrialRequest

    status = run(TrialRequest.load(directory))

    from repro_audit.storage.events import DETAIL, Detail, processes
    from repro_audit.storage.facts import Facts
    from repro_audit.storage.trace import Trace

    failure = Facts.load(directory / FACTS).failure
    if failure is not None:
        print(failure.whole or failure.what)
        return status
    for row in Trace.open(directory / "trace"):
        print(row.step, row.phase.label, row.name, row.meta, row.digest.hex())
    for name, path in processes(directory / DETAIL).items():
        events = Detail.open(path)
        for number in range(len(events)):
            event = events.event(number)
            line = f"{event.site.file}:{event.site.line}" if event.site else "-"
            print(name, event.kind.name, event.name, line, event.before.hex(), event.after.hex())
    print(f"kept: {directory}")
    return status


if __name__ == "__main__":
    main()
