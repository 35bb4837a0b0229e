"""Single trials of commands, for tests."""

from __future__ import annotations

import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.isolation.sandbox import plan_copies, plan_isolation
from repro_audit.sources import catalogue
from repro_audit.target import parse
from repro_audit.trial.oracle import Trial, TrialOracle
from repro_audit.trial.request import Watch
from repro_audit.trial.runner import Runner
from tests.auditing import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

PYTHON = sys.executable


def write(tree: Path, name: str, text: str) -> None:
    """Write a program."""
    (tree / name).write_text(textwrap.dedent(text), encoding="utf-8")


@contextmanager
def oracle(
    tree: Path,
    patch: pytest.MonkeyPatch,
    *words: str,
    steps: int = 3,
    timeout: float = 120,
    shared: Path | None = None,
) -> Iterator[TrialOracle]:
    """What makes trials of a target: `--` and a command, or a script and its arguments.

    `shared`: as `--trace-dir` has it.
    """
    patch.chdir(tree)
    for name, value in environment().items():
        patch.setenv(name, value)
    isolation = plan_isolation(tree) if shared is None else plan_copies(tree, shared)
    try:
        with Runner(side_by_side=1, timeout=timeout, temporary=isolation.scratch) as runner:
            yield TrialOracle(
                runner=runner,
                isolation=isolation,
                sources=catalogue(),
                target=parse(words[0], words[1:]),
                seed=0,
                steps=steps,
                fresh=True,
                on_several=shared is not None,
            )
    finally:
        isolation.cleanup()


def pinned(oracle: TrialOracle) -> Trial:
    """A trial with everything pinned."""
    (trial,) = oracle.try_settings([({}, Watch())])
    return trial
