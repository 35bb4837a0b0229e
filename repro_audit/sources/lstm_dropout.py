"""The dropout between the layers of an RNN under cuDNN keeps a state that reseeding does not reset.

DOC
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import process_reuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts, Json
    from repro_audit.trial.context import TrialContext

PINNED, OFF = "as built", "dropout off"
ID = "lstm-dropout"


def survey(trial: TrialContext) -> Json:
    """How many recurrent modules ran with dropout between their layers."""
    return trial.notes.get(ID, 0)


def levels(facts: Facts) -> Levels | str:
    """Carried by the second run in one process; removal convicts."""
    if not facts.survey.get(ID):
        return "no nn.LSTM, nn.GRU or nn.RNN with dropout ran"
    return Levels(carrier=(process_reuse.SOURCE.id, process_reuse.SECOND), removal=OFF)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Count the modules with dropout as they run, or take their dropout out."""
    trial.when_imported("torch", lambda: _watch(level, trial))
    yield


def _watch(level: str, trial: TrialContext) -> None:
    nn = sys.modules["torch"].nn
    forward = {cls: cls.forward for cls in (nn.LSTM, nn.GRU, nn.RNN)}
    seen: set[int] = set()

    def patched(cls: Any) -> Any:
        def run(module: Any, *args: Any, **kwargs: Any) -> Any:
            if module.dropout and module.num_layers > 1 and id(module) not in seen:
                seen.add(id(module))
                trial.notes[ID] = len(seen)
            if level == OFF:
                module.dropout = 0.0
            return forward[cls](module, *args, **kwargs)

        return run

    for cls in forward:
        cls.forward = patched(cls)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say what was shown, and what only a device with cuDNN can show."""
    if judgement.status == "broke":
        return Verdict(
            status="broke",
            reason="a reseeded second run in the same process differs, and agrees once the dropout is taken out",
        )
    if judgement.status == "held" and not facts.cuda:
        return Verdict(
            status="not-exercised",
            reason="no CUDA device: a reseeded second run agreed, but on CPU kernels, which keep no dropout state",
        )
    return Verdict(
        status=judgement.status,
        reason=judgement.note or "a reseeded second run in the same process gives the same",
    )


def fix(_facts: Facts) -> Fix:
    """Take the dropout out of the RNN."""
    return Fix(
        summary="Put the dropout outside the RNN: nn.Dropout draws from the generator that seeding resets.",
        snippet="self.lstm = nn.ModuleList([nn.LSTM(d, h, batch_first=True), nn.LSTM(h, h, batch_first=True)])\n"
        "self.drop = nn.Dropout(p)  # between the layers, in forward()",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
)
