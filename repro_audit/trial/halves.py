"""The two halves of a training that went on from its own checkpoint, made one trace."""

from __future__ import annotations

import shutil

from repro_audit.analysis.resumption import join as joined
from repro_audit.storage.facts import Cut
from repro_audit.storage.trace import Trace, TraceWriter
from repro_audit.trial.request import VALUES, TrialRequest


def join(request: TrialRequest, cut: Cut, *, straight: Trace) -> None:
    """Put the trace of both halves in the place of the second one's."""
    place, whole = request.directory / "trace", request.directory / "joined"
    found = joined(
        straight, Trace.open(request.first_half / "trace"), Trace.open(place), steps=cut.steps
    )
    writer = TraceWriter(whole)
    for row in found.rows:
        name, meta = writer.intern(row.name), writer.intern(row.meta)
        writer.add(row.step, row.phase, row.role, name, meta, row.digest)
    writer.close()
    shutil.rmtree(place)
    whole.rename(place)
    if found.left_out:  # values were counted with what is left out
        shutil.rmtree(request.directory / VALUES, ignore_errors=True)
