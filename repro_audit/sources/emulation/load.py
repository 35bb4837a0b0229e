"""Load on the machine, under which threads finish in other orders."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.isolation.processes import die_with_parent


@contextmanager
def load() -> Iterator[None]:
    """Have a process beside this one that only takes processor time; none where this is left in a forked child."""
    started_by, busy = os.getpid(), os.fork()
    if busy == 0:
        die_with_parent()
        while True:
            pass
    try:
        yield
    finally:
        if os.getpid() == started_by:
            os.kill(busy, signal.SIGKILL)
            os.waitpid(busy, 0)
