"""Rows that say which batch, and which sample of it, a process is fetching.

A fetcher is torch's: it asks the dataset for samples and collates them. Its access to the dataset goes through an
object of ours, which the program never sees: `__getitem__` runs with the dataset itself. Samples that a dataset hands
out many at a time (`__getitems__`) are not told apart, but for those of a `Subset`, which only passes single ones on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import xxhash
from torch.utils.data import Subset

from repro_audit.probe.clock import Clock
from repro_audit.probe.digest.limited import digest
from repro_audit.storage.events import NOTHING, DetailWriter, Kind

_FETCH = int(Kind.FETCH)
_INDICES_SHOWN = 64


@final
class Fetches:
    """Writes the rows of fetches in one process.

    Args:
        writer: of the rows.
        clock: the step and the phase under way.
        settle: called before each row, so that what happened until then comes before it.
    """

    def __init__(
        self,
        *,
        writer: DetailWriter,
        clock: Clock,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._settle = settle
        self.on = False
        """Whether rows are written."""
        self.ended: Callable[[], None] | None = None
        """Called when a batch is complete, or has failed."""

    def watch(self, fetcher: Any, *, loader: int, epoch: int, worker: int) -> None:
        """Write of each batch that a fetcher of torch's makes from now on."""
        fetch = fetcher.fetch
        place = f"{loader}.{epoch}: "
        batches = 0
        is_indexed = not hasattr(fetcher, "dataset_iter")
        if is_indexed:
            fetcher.dataset = _stand_in(fetcher.dataset, self._sample)
        else:
            fetcher.dataset_iter = _Numbered(fetcher.dataset_iter, self._sample)

        collate = fetcher.collate_fn

        def collated(samples: Any) -> Any:
            if self.on:
                self._row("", "collate")
            return collate(samples)

        fetcher.collate_fn = collated

        def observed(indices: Any) -> Any:
            nonlocal batches
            number, batches = batches, batches + 1
            if not self.on:
                return fetch(indices)
            what = text_of(indices) if is_indexed else f"worker {worker}, batch {number}"
            self._row(place + what, "")
            earlier, self._clock.fetching = self._clock.fetching, True
            try:
                return fetch(indices)
            finally:
                self._clock.fetching = earlier
                self._row(place + what, "end")
                if self.ended is not None:
                    self.ended()

        fetcher.fetch = observed

    def _sample(self, index: object) -> None:
        if self.on:
            self._row(text_of(index), "sample")

    def _row(self, name: str, meta: str) -> None:
        self._settle()
        writer, clock = self._writer, self._clock
        nothing = writer.intern("")
        ids = (writer.intern(name), nothing, nothing, writer.intern(meta))
        writer.add(_FETCH, clock.step, clock.phase, *ids, NOTHING, NOTHING)


def text_of(indices: Any) -> str:
    """What a sampler handed out, as text: equal for equal indices, short, and without any code of the program's."""
    items = indices if type(indices) in {list, tuple} else (indices,)
    if all(type(item) in {int, str} for item in items):
        shown = ", ".join(str(item) for item in items[:_INDICES_SHOWN])
        if len(items) <= _INDICES_SHOWN:
            return shown
        rest = xxhash.xxh3_64_hexdigest(repr(items).encode("utf-8", "surrogatepass"))
        return f"{shown}, … ({len(items)} of them, {rest})"
    return f"of type {type(indices).__qualname__}, {digest(indices).hex()}"


def _stand_in(dataset: Any, sample: Callable[[object], None]) -> Any:
    if getattr(dataset, "__getitems__", None) and not _passes_single_ones(dataset):
        return _ManyAtATime(dataset)
    return _OneAtATime(dataset, sample)


def _passes_single_ones(dataset: Any) -> bool:
    """A `Subset` of a dataset without `__getitems__` asks for one sample after the other; so can we."""
    return (
        type(dataset) is Subset
        and "__getitem__" not in vars(dataset)
        and not callable(getattr(dataset.dataset, "__getitems__", None))
    )


class _OneAtATime:
    """A dataset as a fetcher uses it."""

    __slots__ = ("_dataset", "_sample")

    def __init__(self, dataset: Any, sample: Callable[[object], None]) -> None:
        self._dataset = dataset
        self._sample = sample

    def __getitem__(self, index: Any) -> Any:
        # Without batches, an index list may be one "sample" of the dataset's.
        self._sample(index)
        return self._dataset[index]


class _ManyAtATime:
    """A dataset that hands out a batch at once."""

    __slots__ = ("__getitems__", "_dataset")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.__getitems__ = dataset.__getitems__

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[index]


class _Numbered:
    """The samples of an iterable dataset, counted."""

    __slots__ = ("_count", "_sample", "_samples")

    def __init__(self, samples: Iterator[Any], sample: Callable[[object], None]) -> None:
        self._samples = samples
        self._sample = sample
        self._count = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._sample(self._count)
        self._count += 1
        return next(self._samples)
