"""Single trials of small programs under chosen settings: one zygote for many, so that each is quick."""

from __future__ import annotations

import textwrap
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from repro_audit.isolation.sandbox import plan_isolation
from repro_audit.sources import catalogue, checkpoint_resume
from repro_audit.target import parse
from repro_audit.trial.oracle import Trial, TrialOracle
from repro_audit.trial.request import Watch
from repro_audit.trial.runner import Job
from tests.auditing import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.trial.runner import Runner
    from tests.sharing import Interpreters


class Lab:
    """Runs programs that it writes into one tree."""

    def __init__(self, tree: Path, runner: Runner, stack: ExitStack) -> None:
        self._tree = tree
        self._runner = runner
        self._stack = stack

    def trials(
        self, name: str, body: str, *settings: dict[str, str], steps: int = 6
    ) -> list[Trial]:
        """Run a program with everything pinned, then under each setting."""
        oracle = self._oracle(name, body, steps)
        return oracle.try_settings([(setting, Watch()) for setting in ({}, *settings)])

    def resumed(
        self, name: str, body: str, *argv: str, resume_args: tuple[str, ...], steps: int = 6
    ) -> list[Trial]:
        """Run a script with everything pinned, then ended after its checkpoint and run again to go on from there."""
        oracle = self._oracle(name, body, steps, argv=argv, resume_args=resume_args)
        (floor,) = oracle.try_settings([({}, Watch())])
        resumed = {checkpoint_resume.SOURCE.id: checkpoint_resume.RESUMED}
        return [floor, *oracle.try_settings([(resumed, Watch())])]

    def one_by_one(
        self, name: str, body: str, *settings: dict[str, str], steps: int = 6
    ) -> list[Trial]:
        """Run a program under each setting, so that each trial finds what the earlier ones left."""
        oracle = self._oracle(name, body, steps)
        return [trial for each in settings for trial in oracle.try_settings([(each, Watch())])]

    def as_is(self, name: str, body: str) -> Trial:
        """Run a program under the probe, with nothing pinned."""
        oracle = self._oracle(name, body, 6)
        request = replace(oracle._request({}, Watch()), setting={})
        job = Job(request=request)
        (trial,) = oracle._make([{}], [job])
        assert trial is not None
        return trial

    def _oracle(
        self,
        name: str,
        body: str,
        steps: int,
        *,
        argv: tuple[str, ...] = (),
        resume_args: tuple[str, ...] | None = None,
    ) -> TrialOracle:
        (self._tree / f"{name}.py").write_text(textwrap.dedent(body), encoding="utf-8")
        isolation = plan_isolation(self._tree)
        self._stack.callback(isolation.cleanup)
        return TrialOracle(
            runner=self._runner,
            isolation=isolation,
            sources=catalogue(),
            target=parse(f"{name}.py", argv)
            if resume_args is not None
            else parse(f"{name}.py:build"),
            seed=0,
            steps=steps,
            fresh=False,
            resume_args=resume_args,
        )


@contextmanager
def lab(tree: Path, interpreters: Interpreters, *, timeout: float = 120) -> Iterator[Lab]:
    """A lab whose tree is the working directory, and whose trials take so many seconds at most."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(tree)
        for name, value in environment().items():
            patch.setenv(name, value)
        runner = interpreters.runner(baseline=True, side_by_side=1, timeout=timeout)
        yield Lab(tree, runner, stack)
