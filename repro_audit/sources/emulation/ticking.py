"""A clock that goes by its readings: how far it ticks at each, by the line of the program that reads it.

A clock that ticked evenly would either never let an hour pass, or let ten milliseconds pass before the first look at
them: a program that collects samples until its time is up would get none. So ticks begin small and grow, as long as
the same line reads on, and begin small again where the program comes to that line anew.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import PurePath
from types import FrameType
from typing import Any

from repro_audit.context.numbering import Numbering
from repro_audit.probe.files import is_users
from repro_audit.storage.facts import Json

SECOND = 10**9
UPTIME = 1_000_000 * SECOND
"""What monotonic clocks count from; they say as little about the date as real ones."""
NOT_ALIKE = 1009
"""Nanoseconds by which the clocks of a program's processes differ, as no two read theirs in the same instant."""
LONGEST = 8192 * SECOND
"""Of ticks that grow; no more than hours pass from one step to the next."""
CALLS_SHOWN = 6
"""The program's calls that tell two readings apart, innermost first: many have a function of their own for the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a level's clock goes, in nanoseconds."""

    later: int
    tick: int
    """The shortest; all are below a millisecond, so that what has a time limit gets something."""
    beats: tuple[int, ...] = (1,)
    """By how much ticks differ, over and over. Durations that are compared come out one way or the other."""
    factor: int = 0
    """From one tick to the next, where the same line reads on; without one, ticks grow as squares do."""
    patience: int = 0
    """Rounds of several readings that pass before the ticks of these grow too."""
    longest: int = LONGEST
    """Of the ticks in such rounds."""

    def length(self, again: int, rounds: int, beat: int) -> int:
        """A tick's length, when a line has read so often in a row, and so often since the program came to it."""
        in_rounds = min(self._grown(max(0, rounds - self.patience)), self.longest)
        grown = max(self._grown(again), in_rounds)
        return self.beats[beat % len(self.beats)] * min(grown, LONGEST)

    def _grown(self, times: int) -> int:
        growth: int = self.factor ** min(times, 64) if self.factor else (1 + times) ** 2
        return self.tick * growth


@dataclass(slots=True, kw_only=True)
class _Readings:
    """What one thread has read."""

    elapsed: int = 0
    count: int = 0
    line: str = ""
    again: int = 0
    """Readings of that line since the last one of another line."""
    lines: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each line, in the order of their last readings: how often it has read, and the number of its last reading."""

    def tick(self, line: str, pace: Pace) -> None:
        """Another reading."""
        self.again = self.again + 1 if line == self.line else 0
        self.line = line
        rounds, last = self.lines.pop(line, (-1, self.count))
        if rounds >= 0:
            self._begin_anew_since(last)
        self.elapsed += pace.length(self.again, rounds + 1, self.count)
        self.count += 1
        self.lines[line] = (rounds + 1, self.count)

    def _begin_anew_since(self, last: int) -> None:
        """Where lines have read in a loop since a reading, let them begin anew."""
        since = []
        for line, (_, number) in reversed(self.lines.items()):
            if number <= last:
                break
            since.append(line)
        if self.count - last > len(since):
            for line in since:
                self.lines[line] = (-1, self.lines[line][1])


class Clock:
    """A clock for each thread, of its own readings: no thread's timing reaches another's clock."""

    def __init__(self, pace: Pace, instant: int, processes: Numbering) -> None:
        self._pace = pace
        self._instant = instant * SECOND
        self._first: int | None = None
        self._processes = processes
        self._thread = threading.local()

    def _readings(self) -> _Readings:
        readings: _Readings | None = getattr(self._thread, "readings", None)
        if readings is None:
            readings = self._thread.readings = _Readings(elapsed=self._first or 0)
        return readings

    def restart(self) -> None:
        """Begin anew, for the next run in this process: where the program's import left off."""
        if self._first is None:
            self._first = self._readings().elapsed
        self._thread = threading.local()

    def tick(self, frame: FrameType) -> None:
        """Go on, since the program's line that runs in a frame reads the clock."""
        self._readings().tick(_line(frame), self._pace)

    def elapsed(self) -> int:
        """Nanoseconds since the start."""
        return self._readings().elapsed + NOT_ALIKE * sum(self._processes.own())

    def wall(self) -> int:
        """Nanoseconds since 1970."""
        return self._instant + self._pace.later + self.elapsed()

    def monotonic(self) -> int:
        """Nanoseconds since some time before the program started."""
        return UPTIME + self._pace.later + self.elapsed()

    def sleep(self, nanoseconds: int) -> None:
        """Let time pass."""
        self._readings().elapsed += nanoseconds

    def seen(self) -> Json:
        """What this thread has read."""
        seen = self._readings()
        lines = [[line, *numbers] for line, numbers in seen.lines.items()]
        return [seen.elapsed, seen.count, seen.line, seen.again, lines]

    def go_on(self, seen: Json) -> None:
        """Show what comes after that."""
        elapsed, count, line, again, lines = seen
        self._thread.readings = _Readings(
            elapsed=elapsed,
            count=count,
            line=line,
            again=again,
            lines={line: (rounds, last) for line, rounds, last in lines},
        )


def _line(frame: FrameType) -> str:
    """The line that reads, and those that called it: by the same name wherever the program lies."""
    calls: list[str] = []
    at: Any = frame
    while at is not None and len(calls) < CALLS_SHOWN:
        if is_users(at.f_code.co_filename):
            calls.append(f"{PurePath(at.f_code.co_filename).name}:{at.f_lineno}")
        at = at.f_back
    return " ".join(calls)
