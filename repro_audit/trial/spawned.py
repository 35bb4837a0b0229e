"""The setting of a trial, put in force in a process of it that begins as a new interpreter.

A worker that is forked inherits what the sources have patched; one that is spawned has nothing of it. Without this,
what the trial pins would be loose there, and the difference be blamed on the way in which workers start.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from repro_audit.context import TrialContext
from repro_audit.context.checkpoint import Checkpoint
from repro_audit.context.numbering import Numbering
from repro_audit.trial.request import TEMPORARY, TrialRequest

_in_force = ExitStack()
"""Never left: the levels hold until the process ends."""
_whole = False
"""Something else has put the trial's whole setting in force in this interpreter."""


def settled() -> None:
    """Note that the trial's setting is in force in this interpreter, so that nothing puts it there twice."""
    global _whole  # noqa: PLW0603 - one interpreter, one setting
    _whole = True


@dataclass(frozen=True, slots=True)
class Setting:
    """Puts a trial's setting in force, when called; plain data, so that it can be pickled."""

    directory: str
    processes: Numbering
    """Of the trial; the worker goes on with it."""

    def __call__(self) -> None:
        """Apply each source's level, as the trial does, before the program is imported."""
        from repro_audit.sources import of_trial

        if _whole:
            return
        request = TrialRequest.load(Path(self.directory))
        context = dataclasses.replace(context_of(request), processes=self.processes)
        sources = of_trial(request.plugins)
        for name, level in request.setting.items():
            context.internals = sources[name].internals
            # A plugin that fails is left out, as in the trial's first process.
            with suppress(Exception) if name in request.plugins else nullcontext():
                _in_force.enter_context(sources[name].apply(level, context))


def _temporary(request: TrialRequest) -> tuple[Path, ...]:
    """By which paths this process finds its directory for temporary files."""
    own = request.directory / TEMPORARY
    found = (place for place in request.temporary if place.is_dir() and place.samefile(own))
    return tuple(found) or (own,)


def context_of(request: TrialRequest) -> TrialContext:
    """What the sources may touch, in a process of the trial."""
    return TrialContext(
        seed=request.seed,
        setting=request.setting,
        directory=request.directory,
        root=request.tree.map(request.tree.root),
        elsewhere=request.tree.elsewhere(),
        instant=request.instant,
        temporary=_temporary(request),
        first_run_wrote=request.first_run_wrote,
        unpinned={name: list(lines) for name, lines in request.unpinned.items()},
        checkpoint=Checkpoint(
            half=request.half,
            directory=request.first_half,
            procedure=bool(request.target.launched),
            script=request.target.mode == "script" and not request.target.launched,
            arguments=request.resume_args,
            cut=request.cut,
        ),
    )
