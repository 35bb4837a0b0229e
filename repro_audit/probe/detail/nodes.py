"""Which line of the forward made a node of the autograd graph, for the ops that its backward runs.

PyTorch numbers nodes as it makes them, a count a thread, and makes an op's node just before the op runs. So the numbers
that were given out since the last op are this op's, whatever it is: a view, an op in place, a custom Function.
"""

from __future__ import annotations

from array import array
from typing import Final

PLACES: Final = 1 << 18
"""Nodes that are remembered; of a backward through more, the oldest ones' lines are not known any more."""
_MASK: Final = PLACES - 1


class Nodes:
    """A ring of the latest nodes of a thread: memory is the same however many steps there are."""

    __slots__ = ("_first", "_places", "_ring", "next")

    def __init__(self, following: int) -> None:
        self._ring = array("Q", bytes(8 * PLACES))
        self._first = following
        self.next = following
        """The number that the next node gets, as far as was looked."""

    def made(self, following: int, place: int) -> None:
        """All nodes up to `following` were made at a place, which is any number of 64 bits."""
        ring = self._ring
        for number in range(max(self.next, following - PLACES), following):
            ring[number & _MASK] = place
        self.next = following

    def find(self, number: int) -> int | None:
        """The place where a node was made; None where nobody looked, or too long ago."""
        if self._first <= number < self.next and number >= self.next - PLACES:
            return self._ring[number & _MASK]
        return None
