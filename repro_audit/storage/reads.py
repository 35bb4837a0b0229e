"""What a line of a program may read besides its variables: seen by the probe, and looked for on behalf of a source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CLOCK, ENTROPY, LISTING = "clock", "entropy", "listing"
ENVIRONMENT, ADDRESS, HASH, SET_ORDER = "environment", "address", "hash", "set order"
COMPLETION = "completion"

_IN_WORDS = {
    CLOCK: "the clock",
    ENTROPY: "random numbers of the operating system",
    LISTING: "a directory's listing",
    ENVIRONMENT: "the environment",
    ADDRESS: "an object's address",
    HASH: "a hash",
    SET_ORDER: "the order of a set",
    COMPLETION: "results in the order in which they are finished",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """What the line that a source is to blame for does: the runs may show its doing at a later line only."""

    reads: frozenset[str] = frozenset()
    lines: frozenset[tuple[str, int]] = frozenset()
    """File (absolute) and line of those that were seen to do it, by whoever replaced what they call."""
    hidden_order: bool = False
    """As `Source.hidden_order`."""

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.reads or self.lines)


def in_words(reads: Iterable[str]) -> str:
    """`it reads the clock and a hash`; empty for nothing."""
    found = " and ".join(_IN_WORDS[read] for read in reads)
    return f"it reads {found}" if found else ""
