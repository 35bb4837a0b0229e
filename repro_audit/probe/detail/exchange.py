"""Values of op outputs that were asked for, and reference values that are put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch

from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.probe.digest.tensors import overwrite
from repro_audit.storage.columns import ColumnWriter
from repro_audit.storage.facts import Key
from repro_audit.storage.values import Value

Row = tuple[int, int, int, int, int]
"""Step, phase, and the ids of name, site and module."""


class Exchange:
    """Saves outputs and overwrites them; rows are counted, so that each has a key of its own.

    The key of output n of an op is `(step, phase, "name|site|module|n", occurrence)`: the texts of the row, and how
    many rows with the same step, phase and texts came before it.
    """

    def __init__(
        self,
        texts: ColumnWriter,
        values: ValueWriter | None,
        capture: frozenset[Key],
        feed: Mapping[Key, Value],
    ) -> None:
        self._texts = texts
        self._values = values
        self._capture = capture if values is not None else frozenset()
        self._feed = feed
        self._steps = {key[0] for key in (*self._capture, *feed)}
        self._seen: dict[Row, int] = {}
        self._names: dict[tuple[int, int, int], str] = {}

    def ran(self, row: Row, outputs: list[Any]) -> None:
        """An op left these outputs."""
        if row[0] not in self._steps:
            return
        occurrence = self._seen.get(row, 0)
        self._seen[row] = occurrence + 1
        place = row[2:]
        name = self._names.get(place)
        if name is None:
            name = self._names[place] = "|".join(self._text(each) for each in place)
        for number, output in enumerate(outputs):
            key = (row[0], row[1], f"{name}|{number}", occurrence)
            if key in self._capture and self._values is not None:
                self._values.add(key, output)
            value = self._feed.get(key)
            if value is not None and isinstance(output, torch.Tensor):
                overwrite(output, value.dtype, value.shape, value.data)

    def step_ended(self, step: int) -> None:
        """Forget the counts of steps before `step`."""
        self._seen = {row: count for row, count in self._seen.items() if row[0] >= step}

    def _text(self, number: int) -> str:
        return next(islice(self._texts.texts, number, None))
