"""The order of a set, or anything else that follows from string hashes, decides the result.

DOC
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.facts import Facts


def levels(_facts: Facts) -> Levels:
    """Two other hash seeds, each in an interpreter of its own."""
    return Levels(varied=("1", "2"), interpreter=True)


def environment(level: str) -> Mapping[str, str]:
    """The hash seed is read once, when an interpreter starts."""
    return {"PYTHONHASHSEED": level}


def fix(_facts: Facts) -> Fix:
    """Sort; or fix the hash seed from outside."""
    return Fix(
        summary="Sort what comes out of a set before it decides anything. Fixing the hash seed works only from outside: "
        "PYTHONHASHSEED=0 python train.py",
        snippet="vocabulary = sorted(set(words))  # not list(set(words))",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned="0",
    levels=levels,
    environment=environment,
    judge=in_words(
        held="other values of PYTHONHASHSEED change nothing",
        broke="another PYTHONHASHSEED gives another result; Python draws a new one for each process",
    ),
    fix=fix,
)
