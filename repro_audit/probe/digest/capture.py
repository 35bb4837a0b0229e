"""Values that were asked for, saved as raw bytes with their dtype and shape; `storage.values` reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from repro_audit.probe.digest import tensors
from repro_audit.storage.facts import Key
from repro_audit.storage.values import ALIGNMENT, DATA, INDEX

if TYPE_CHECKING:
    import numpy.typing as npt


@final
class ValueWriter:
    """Saves values to a directory, which is made. A key that comes again replaces the earlier value.

    Only the process that made it writes: a forked DataLoader worker has a copy, whose calls do nothing.

    Args:
        directory: where they go.
        sample: of each value, so many elements at most, spread evenly; 0 for all.
    """

    __slots__ = ("_directory", "_pid", "sample")

    def __init__(self, directory: Path, *, sample: int = 0) -> None:
        self.sample = sample
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._pid = os.getpid()

    def add(self, key: Key, value: object) -> bool:
        """Save a tensor, an array or numbers; False where the value has no elements that could be measured."""
        contents = _contents(value, self.sample) if os.getpid() == self._pid else None
        if contents is None:
            return False
        dtype, shape, parts, numel = contents
        with (self._directory / DATA).open("ab") as data:
            data.write(bytes(-data.tell() % ALIGNMENT))
            start = data.tell()
            data.writelines(parts)
            size = data.tell() - start
        entry = {"key": key, "dtype": dtype, "shape": shape, "start": start, "bytes": size}
        if numel:
            entry["of"] = numel
        with (self._directory / INDEX).open("a", encoding="ascii") as index:
            index.write(json.dumps(entry) + "\n")
        return True


def _contents(value: object, sample: int) -> tuple[str, tuple[int, ...], Iterable[Any], int] | None:
    """The dtype, the shape and the bytes of a value, the bytes piece by piece; of a sample, what it is one of."""
    if isinstance(value, torch.Tensor):
        dense = tensors.dense(value)
        if dense is None:
            return None
        name, numel = str(dense.dtype).removeprefix("torch."), dense.numel()
        if sample and numel > sample:
            with tensors.plainly():
                every = dense.detach().reshape(-1)[:: _stride(numel, sample)].contiguous()
            return name, tuple(every.shape), tensors.blocks(every), numel
        return name, tuple(dense.shape), tensors.blocks(dense), 0
    array = _as_array(value)
    if array is None:
        return None
    numel = array.size if 0 < sample < array.size else 0
    if numel:
        array = array.reshape(-1)[:: _stride(numel, sample)]
    return str(array.dtype), array.shape, [np.ascontiguousarray(array).tobytes()], numel


def _stride(numel: int, sample: int) -> int:
    """From one element of a sample to the next: odd, so that rows of even length are met at all of their columns."""
    return -(-numel // sample) | 1


def _as_array(value: object) -> npt.NDArray[Any] | None:
    """Numbers as an array in the machine's byte order; None for anything else."""
    kinds = set(map(type, value)) if isinstance(value, (list, tuple)) else {type(value)}
    is_array = isinstance(value, (np.ndarray, np.generic))
    if not is_array and (len(kinds) != 1 or not kinds < {bool, int, float, complex}):
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        return None
    return array.astype(array.dtype.newbyteorder("="), copy=False)
