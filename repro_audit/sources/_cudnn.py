"""What the sources that are a flag of `torch.backends.cudnn` share."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from repro_audit.replacements import Replacements
from repro_audit.source import Levels, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from repro_audit.context import TrialContext
    from repro_audit.experiment import Judgement
    from repro_audit.storage.facts import Facts

AS_WRITTEN = "as written"


def levels(flipped: str) -> Callable[[Facts], Levels]:
    """The user's own setting, and the opposite of the pinned one; a program may branch on a flag on any machine."""
    return lambda _facts: Levels(varied=(AS_WRITTEN, flipped))


def apply(flag: str) -> Callable[[str, TrialContext], AbstractContextManager[None]]:
    """Set the flag before the target is loaded, and again after build(), so that the level wins over the program."""

    @contextmanager
    def vary(level: str, trial: TrialContext) -> Iterator[None]:
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

    return vary


def judge(flag: str) -> Callable[[Judgement, Facts], Verdict]:
    """A flag of cuDNN is held only where a CUDA device ran."""

    def read(judgement: Judgement, facts: Facts) -> Verdict:
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

    return read
