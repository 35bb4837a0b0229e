"""Files that the first run leaves change the second run.

DOC
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, Verdict

if TYPE_CHECKING:
    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts

PINNED, WARM = "cold tree", "after one run"


def levels(facts: Facts) -> Levels | str:
    """The tree that the first run left, where it left anything."""
    if not facts.written:
        return "the program writes no files into its tree, so a second run finds what the first one found"
    return Levels(varied=(WARM,))


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the files."""
    files = ", ".join(facts.written[:3]) + (
        f" and {len(facts.written) - 3} more" if len(facts.written) > 3 else ""
    )
    reasons = {
        "broke": f"a run that finds what an earlier run wrote ({files}) gives another result",
        "held": f"a run that finds what an earlier run wrote ({files}) gives the same",
    }
    return Verdict(
        status=judgement.status, reason=reasons.get(judgement.status, judgement.note or "")
    )


def fix(_facts: Facts) -> Fix:
    """Take the same path with and without the cache."""
    return Fix(
        summary="Draw the same random numbers whether the cache is there or not: give what is cached a generator of "
        "its own, and read back what was written even when it was just made.",
        snippet="generator = torch.Generator().manual_seed(seed)  # of its own, not the global one\n"
        "if not path.exists():\n"
        "    torch.save(make(generator), path)\n"
        "data = torch.load(path)  # the same bytes in every run",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    judge=judge,
    fix=fix,
)
