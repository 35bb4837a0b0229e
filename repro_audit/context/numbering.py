"""Telling the processes of one run apart, by the order in which it starts them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import count


@dataclass(slots=True, kw_only=True)
class Numbering:
    """Numbers processes as `multiprocessing` does, but anew for each run in the program's first process."""

    before: int = 0
    """How many processes earlier runs started; negative where the run began in another process."""

    def restart(self) -> None:
        """Begin with the next process."""
        self.before = _started()

    def started(self) -> int:
        """How many processes this run has started."""
        return _started() - self.before

    def go_on(self, started: int) -> None:
        """Number the next process as if this run had started so many."""
        self.before = _started() - started

    def own(self) -> tuple[int, ...]:
        """This process: which worker, and of which worker; empty for the program's first process."""
        process = sys.modules.get("multiprocessing.process")
        identity = process.current_process()._identity if process is not None else ()
        return (identity[0] - self.before, *identity[1:]) if identity else ()


def _started() -> int:
    """How many processes this one has started."""
    counter = getattr(sys.modules.get("multiprocessing.process"), "_process_counter", None)
    return position(counter) - 1 if isinstance(counter, count) else 0


def position(counter: count[int]) -> int:
    """The number that an `itertools.count` hands out next, without counting on."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))
