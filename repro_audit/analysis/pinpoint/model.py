"""What the comparison of two runs' detailed events comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from repro_audit.errors import InternalError
from repro_audit.storage.events import Event

CauseKind: TypeAlias = Literal["op", "line", "draw", "file", "order", "reading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPair:
    """An event in both runs, or in one of them alone."""

    event: Event | None
    """The first run's."""
    other: Event | None

    @property
    def either(self) -> Event:
        """The first run's event, or the second's where only that one has it."""
        found = self.event or self.other
        if found is None:
            raise InternalError("An event of neither run.", where="pinpoint", why="no row")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The part of a batch that a DataLoader was fetching."""

    fetch: str
    """Name of the batch: `loader.epoch: indices`."""
    position: int | None
    """In the batch; None for what concerns the batch as a whole. Likewise the next one."""
    index: str | None
    """In the dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The first event in execution order that explains a difference."""

    kind: CauseKind
    """`op`, `line`: it made something else of equal values. `draw`: a random generator parted there. `file`: it read
    a file with another content. `order`: only one run has it, or has it there. `reading`: a line that reads what the
    source is about, and ran or decided what differs first."""
    place: EventPair
    detail: str
    """In words; empty where the kind says all."""
    process: str
    """The process of the first run that it is in. Likewise the next one."""
    other_process: str
    generator: str = ""
    """Which one parted, for a draw."""
    began: EventPair | None = None
    """Where that generator was first drawn from, if nothing had seeded it."""
    path: str = ""
    """Which file differs, for a file."""
    sample: Sample | None = None
    where_from: tuple[EventPair, ...] = ()
    """The way from the cause to the difference that was to be explained."""
    independent: tuple[Cause, ...] = ()
    """Further causes that have nothing to do with this one, and come to something too."""
    incomplete: bool = False
    """The true cause lies before what was seen: look at more steps."""

    @property
    def event(self) -> Event | None:
        """The first run's event."""
        return self.place.event

    @property
    def other(self) -> Event | None:
        """The second run's event."""
        return self.place.other
