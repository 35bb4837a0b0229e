"""What the sources that are a flag of `torch.backends.cudnn` share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, FixCost, Levels, RunPin, Scope, Source, Verdict
from repro_audit.storage.facts import Facts

AS_WRITTEN = "as written"


def source(name: str, doc: str | None, *, flag: str, pinned: bool, fix_cost: str) -> Source:
    """The source of a module.

    Args:
        name: of the module.
        doc: its docstring.
        flag: what it is about.
        pinned: the value that repeats.
        fix_cost: what that takes, in words, as `FixCost` has them.
    """
    line = f"torch.backends.cudnn.{flag} = {pinned}"
    fix = Fix(
        summary="Set the flag before the first convolution runs.",
        snippet=f"import torch\n\n{line}",
    )

    @contextmanager
    def apply(level: str, trial: TrialContext) -> Iterator[None]:
        """Set it before the target is loaded, and again after build(), so that the level wins over the program."""

        def put(value: bool) -> None:  # noqa: FBT001 - what is put
            backends = sys.modules["torch"].backends
            if not backends.flags_frozen():  # by the program
                setattr(backends.cudnn, flag, value)

        def set_flag(*_: object) -> None:
            now = getattr(sys.modules["torch"].backends.cudnn, flag)
            replacements.setting(put, now, level == "True")

        with Replacements() as replacements:
            if level != AS_WRITTEN:
                trial.when_imported("torch", set_flag)
                trial.on_built.append(set_flag)
            yield

    return Source(
        name=name,
        doc=doc,
        scope=Scope.SETTINGS,
        pinned=str(pinned),
        # A program may branch on a flag on any machine.
        levels=lambda _facts: Levels(varied=(AS_WRITTEN, str(not pinned))),
        apply=apply,
        run_pin=RunPin(line=line),
        judge=partial(_judge, flag),
        fix=lambda _facts: fix,
        pinned_by_fix=True,
        fix_cost=FixCost(words=fix_cost, fixed=str(pinned), without=str(not pinned)),
    )


def _judge(flag: str, judgement: Judgement, facts: Facts) -> Verdict:
    """A flag of cuDNN is held only where a CUDA device ran."""
    if judgement.status == "held" and not facts.cuda:
        return Verdict(
            status="not-exercised",
            reason=f"{facts.no_cuda}; the program does not branch on the flag either",
        )
    if judgement.status == "held" and flag == "deterministic":
        # ATen asks for a deterministic algorithm where either the flag or the global mode wants one, and the
        # audit pins the mode.
        return Verdict(
            status="not-exercised",
            reason="torch.use_deterministic_algorithms, which the audit pins, has the same effect",
        )
    diverged = {level.level for level in judgement.levels if level.diverged}
    if judgement.status == "broke" and facts.cuda and AS_WRITTEN not in diverged:
        return Verdict(
            status="delegated",
            reason=f"as written the result is that of the pinned flag; with torch.backends.cudnn.{flag} set "
            "otherwise around the program, cuDNN takes other algorithms",
        )
    return Verdict.of(
        judgement,
        held=f"other settings of torch.backends.cudnn.{flag} change nothing",
        broke=f"another setting of torch.backends.cudnn.{flag} gives another result",
    )
