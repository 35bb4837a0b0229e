"""Audits in this process that share their interpreters: to import torch is most of what a small audit costs.

The command line, the experiment and the report are as in a process of their own. Trials are forked from interpreters
that outlive an audit; those that ask for a fresh one get it only where `fresh` says so, as the benchmarks do, since to
import torch takes longer than the trial. `tests.auditing.check` is an audit as users run it.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from repro_audit import cli
from repro_audit.trial.runner import Runner
from tests.auditing import Audited, environment, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from repro_audit.trial.runner import Ended, Job


class Forking(Runner):
    """Forks the trials too that ask for a fresh interpreter, unless some import has run a kernel."""

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, Ended], None] = lambda *_: None
    ) -> list[Ended]:
        """As `Runner.run`."""
        return super().run(
            [
                dataclasses.replace(
                    job, fresh=False, before_kernels=job.fresh or job.before_kernels
                )
                for job in jobs
            ],
            done,
        )


class Interpreters:
    """Runners, one for each environment, that are lent to one audit after another."""

    def __init__(self, temporary: Path, *, fresh: bool) -> None:
        self._temporary = temporary
        self._kind = Runner if fresh else Forking
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
            self.lent(baseline=baseline),
            redirect_stderr(said),
            redirect_stdout(said),
        ):
            patched.chdir(cwd)
            for name, value in environment(baseline=baseline).items():
                patched.setenv(name, value)
            arguments = ["repro-audit", "check", "--verbose", "--json", str(saved), spec, *options]
            patched.setattr("sys.argv", arguments)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return read(saved, exit_code=int(ended.value.code or 0), terminal=said.getvalue())

    def lent(self, *, baseline: bool) -> AbstractContextManager[Any]:
        """While it lasts, audits in this process borrow their runner."""
        return patch("repro_audit.session.Runner", self._lender(baseline=baseline))

    def runner(self, *, baseline: bool, side_by_side: int, timeout: float) -> Runner:
        """The runner for environments as `tests.auditing.environment` has them, which the caller puts in force."""
        runner = self._runners.get(baseline)
        if runner is None:
            temporary = self._temporary / f"{baseline}"
            temporary.mkdir()
            runner = self._kind(side_by_side=side_by_side, timeout=timeout, temporary=temporary)
            self._runners[baseline] = self._stack.enter_context(runner)
        runner.side_by_side, runner.timeout, runner.progress = side_by_side, timeout, _unseen
        return runner

    def _lender(self, *, baseline: bool) -> Callable[..., Any]:
        @contextmanager
        def lend(*, side_by_side: int, timeout: float, progress: Any, **_: Any) -> Iterator[Runner]:
            runner = self.runner(baseline=baseline, side_by_side=side_by_side, timeout=timeout)
            runner.progress = progress
            yield runner

        return lend


def _unseen(_trial: str, _setting: dict[str, str] | None) -> None:
    """Progress that nobody watches."""
