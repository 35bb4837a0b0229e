"""Load on the machine, under which threads finish in other orders."""

from __future__ import annotations

import os

from repro_audit.isolation.processes import die_with_parent


def busy_process() -> int:
    """A process that only takes processor time, so that the trial's threads finish in other orders."""
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        while True:
            pass
    return pid
