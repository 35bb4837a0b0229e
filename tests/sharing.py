"""Audits in this process that share their interpreters: to import torch is most of what a small audit costs.

The command line, the experiment and the report are as in a process of their own; so is the first trial, in a fresh
interpreter. Only the interpreters that later trials are forked from outlive an audit.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from repro_audit import cli
from repro_audit.trial.runner import Runner
from tests.auditing import Audited, environment, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Interpreters:
    """Runners, one for each environment, that are lent to one audit after another."""

    def __init__(self, temporary: Path) -> None:
        self._temporary = temporary
        self._runners: dict[bool, Runner] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Interpreters:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(
        self, spec: str, *options: str, cwd: Path, saved: Path, baseline: bool = True
    ) -> Audited:
        """As `tests.auditing.check`."""
        said = StringIO()
        with (
            pytest.MonkeyPatch.context() as patched,
            patch("repro_audit.audit.Runner", self._lender(baseline=baseline)),
            redirect_stderr(said),
            redirect_stdout(said),
        ):
            patched.chdir(cwd)
            for name, value in environment(baseline=baseline).items():
                patched.setenv(name, value)
            arguments = ["repro-audit", "check", spec, *options, "--json", str(saved)]
            patched.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return read(saved, exit_code=int(ended.value.code or 0), terminal=said.getvalue())

    def _lender(self, *, baseline: bool) -> Callable[..., Any]:
        @contextmanager
        def lend(*, side_by_side: int, timeout: float, progress: Any, **_: Any) -> Iterator[Runner]:
            runner = self._runners.get(baseline)
            if runner is None:
                temporary = self._temporary / f"{baseline}"
                temporary.mkdir()
                runner = Runner(side_by_side=side_by_side, timeout=timeout, temporary=temporary)
                self._runners[baseline] = self._stack.enter_context(runner)
            runner.side_by_side, runner.timeout, runner.progress = side_by_side, timeout, progress
            yield runner

        return lend
