"""Convolutions take whatever algorithm cuDNN likes, deterministic or not.

DOC
"""

from __future__ import annotations

from repro_audit.source import Fix, Scope, Source
from repro_audit.sources import _cudnn

FLAG = "deterministic"


def fix(_facts: object) -> Fix:
    """Set the flag in the program."""
    return Fix(
        summary="Set the flag before the first convolution runs.",
        snippet="import torch\n\ntorch.backends.cudnn.deterministic = True",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned="True",
    levels=_cudnn.levels("False"),
    apply=_cudnn.apply(FLAG),
    judge=_cudnn.judge(FLAG),
    fix=fix,
)
