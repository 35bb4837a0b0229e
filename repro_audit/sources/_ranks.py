"""What the sources share that compare the ranks of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.storage.facts import of_rank

if TYPE_CHECKING:
    from repro_audit.storage.trace import Phase, Role, Trace

AS_IS = "as is"
ONE_PROCESS = "one process trains"


def bits(trace: Trace, phase: Phase, prefix: str, *, role: Role) -> dict[tuple[int, str], bytes]:
    """By step and name, in execution order: the last observation of each name that begins so, in a phase."""
    return {
        (row.step, name): row.digest
        for row in trace.rows(phase=phase)
        if row.role is role and (name := of_rank(row.name)[1]).startswith(prefix)
    }
