"""The hooks on loaders: each batch as the training takes it, with the indices of its samples.

A DataLoader with workers draws indices long before it hands out the batch, and may hand out batches in another order.
So the indices are kept by task until the task's batch is taken.
"""

from __future__ import annotations

import functools
import operator
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn, Protocol

import torch
import xxhash
from torch.utils.data import DataLoader, IterableDataset

from repro_audit import torch_internals
from repro_audit.probe import LoaderFacts, Probe, files
from repro_audit.probe.digest.leaves import leaves
from repro_audit.probe.digest.tensors import digest
from repro_audit.probe.steps.models import ByIdentity
from repro_audit.probe.steps.recorder import Recorder
from repro_audit.probe.steps.workers import WorkerLoop
from repro_audit.replacements import Replacements
from repro_audit.storage.trace import Phase
from repro_audit.torch_internals import Internal
from repro_audit.torch_internals import loaders as internals

_BaseIterator = internals.ITERATOR.get()
_WorkersIterator = internals.WORKERS_ITERATOR.get()
_DATA = int(Phase.DATA)
_MARK = "_repro_audit"
_INDICES_SHOWN = 64
_MOST_UNTOLD = 1_000
"""Batches of indices that are read of a sampler that does not say how many it has."""
_MOST_INDICES = 1_000_000
"""Single ones that are read of any."""


class Training(Protocol):
    """The hooks on the training that the loaders feed."""

    recorder: Recorder

    @property
    def observing(self) -> bool:
        """Whether this is the thread, and the process, that is observed."""
        ...

    def fetching(self) -> AbstractContextManager[None]:
        """Mute, while a loader is at work."""
        ...

    def meet(self, event: str) -> None:
        """Tell whoever waits for it that the training goes on."""
        ...

    def settle(self) -> None:
        """Count a step where parameters were changed by hand since the last backward."""
        ...

    def generators(self, phase: int) -> None:
        """Observe the ambient generators."""
        ...

    def end(self) -> NoReturn:
        """End the training."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Indices:
    """What a sampler handed out for one batch, read when it did: some samplers reuse their list."""

    digest: bytes
    meta: str
    samples: list[int]
    """Empty where they are no plain numbers."""

    @classmethod
    def read(cls, drawn: Any) -> Indices:
        """Read without consuming: what is no list, tuple, number or tensor stays untouched."""
        items = drawn
        with suppress(TypeError):
            items = [operator.index(drawn)]
        if isinstance(items, (list, tuple)):
            with suppress(TypeError, OverflowError):
                numbers = array("q", items)
                samples = numbers.tolist()
                more = ", …" if len(samples) > _INDICES_SHOWN else ""
                return cls(
                    digest=xxhash.xxh3_128_digest(numbers),
                    meta=f"{str(samples[:_INDICES_SHOWN])[1:-1]}{more}",
                    samples=samples,
                )
        return cls(digest=digest(drawn), meta=f"of type {type(drawn).__name__}", samples=[])


@dataclass(slots=True, kw_only=True)
class Epoch:
    """One pass over a loader; rides on the iterator."""

    number: int
    facts: LoaderFacts
    indexed: bool
    drawn: dict[int, Indices] = field(default_factory=dict)
    """By task, for batches that were not taken yet."""
    taken: Indices | None = None
    worker: int | None = None
    """Which made the batch that is being taken, where that is known."""
    watched: bool = False
    """Its fetcher writes rows."""
    samples: int = 0
    most: int | None = None
    """How many batches it has, where the driver makes it a short one."""
    begun: int = 0
    """Batches whose indices were handed out."""

    @property
    def name(self) -> str:
        """What its batches are called: `batch`, or `loader1.batch` for the second loader."""
        return f"loader{self.number}.batch" if self.number else "batch"


class Loaders:
    """Hooks on DataLoader iterators, and the same observations for loaders of other kinds."""

    def __init__(self, probe: Probe, hooks: Training) -> None:
        self._probe = probe
        self._hooks = hooks
        self._known: ByIdentity[int] = ByIdentity()
        self._unreferable: list[tuple[object, int]] = []
        self._distinct: list[set[int]] = []
        self._epochs: Counter[tuple[object, ...]] = Counter()
        """By what kind of loader they are of: those that came to their end."""
        self._replacements = Replacements()
        self._worker_loop = internals.WORKER_LOOP.get()
        self._inside = 0
        self._current: Epoch | None = None
        """Of the plain loader that the driver reads."""
        self._made: list[int] = []
        """The numbers of the loaders that a plain loader made anew in its first epoch, in their order."""
        self._made_now = 0
        """How many it has made in the epoch under way."""
        self._shortened: object = None
        """The loader that the driver is entering for no more than `_most` batches."""
        self._most: int | None = None
        self._last: object = None
        """What a DataLoader handed out while the driver waited for a plain loader around it."""

    def install(self) -> None:
        """Hook every DataLoader iterator of the process."""
        self._replacements = Replacements()
        torch_internals.require(
            internals.SAMPLER_ITERATOR,
            internals.NEXT_TASK,
            internals.TASKS,
            internals.FETCHER,
            internals.MAKE_FETCHER,
        )
        self._patch(internals.BEGIN, self._begin)
        self._patch(internals.BEGIN_AGAIN, self._begin_again)
        self._patch(internals.NEXT_BATCH, self._next)
        self._patch(internals.NEXT_INDEX, self._next_index)
        self._patch(internals.TAKE_BATCH, self._process_data)
        self._patch(internals.WORKER_LOOP, lambda loop: loop)  # it changes by epoch

    def uninstall(self) -> None:
        """Undo `install`."""
        self._replacements.close()

    def _patch(self, internal: Internal, make: Callable[[Any], Any]) -> None:
        original = internal.get()
        made = make(original)
        if made is not original:
            functools.update_wrapper(made, original)  # who asks what torch's own is like finds that
        self._replacements.attribute(*internal.spot(), made)

    # DataLoader

    def _begin(self, original: Any) -> Any:
        def __init__(iterator: Any, loader: Any) -> None:  # noqa: N807 - replaces one
            internals.WORKER_LOOP.put(self._worker_loop)
            if self._hooks.observing and not self._inside:
                self._hooks.meet("begin")
            with self._hooks.fetching():
                original(iterator, loader=loader)
            if self._hooks.observing and not self._inside:
                self._begin_epoch(iterator, loader)

        return __init__

    def _begin_again(self, original: Any) -> Any:
        """Workers that persist are asked for another epoch by `_reset`; it also ends the making of any iterator."""

        def _reset(iterator: Any, loader: Any, first_iter: bool = False) -> None:  # noqa: FBT001, FBT002 - torch's
            if not first_iter and hasattr(iterator, _MARK) and self._hooks.observing:
                self._hooks.meet("begin")
                self._begin_epoch(iterator, loader)
            with self._hooks.fetching():
                original(iterator, loader=loader, first_iter=first_iter)

        return _reset

    def _begin_epoch(self, iterator: Any, loader: Any) -> None:
        number = self._number(loader)
        facts = self._probe.loaders[number]
        facts.epochs += 1
        facts.training |= torch.is_grad_enabled()
        epoch = Epoch(
            number=number, facts=facts, indexed=not isinstance(loader.dataset, IterableDataset)
        )
        if loader is self._shortened:
            epoch.most = self._most
        setattr(iterator, _MARK, epoch)
        if loader.num_workers and self._probe.workers is not None:
            loop = WorkerLoop(
                path=str(self._probe.workers),
                loader=number,
                epoch=facts.epochs - 1,
                training=torch.is_grad_enabled(),
                seeded=loader.worker_init_fn is not None,
                files=files.installed(),
                detail=self._probe.detailed and self._probe.detailed.for_workers(),
                prepare=self._probe.prepare,
                original=self._worker_loop,
            )
            internals.WORKER_LOOP.put(loop)

    def _next(self, original: Any) -> Any:
        def __next__(iterator: Any) -> Any:  # noqa: N807 - replaces one
            epoch: Epoch | None = getattr(iterator, _MARK, None)
            if epoch is None or self._inside or not self._hooks.observing:
                return original(iterator)
            self._hooks.settle()
            self._hooks.meet("next")
            self._watch_fetcher(iterator, epoch)
            # A dataset may read a loader of its own, and run modules.
            self._inside += 1
            try:
                with self._hooks.fetching():
                    data = original(iterator)
            except StopIteration:
                self._epoch_over(epoch.facts)
                raise
            finally:
                self._inside -= 1
            self._observe(epoch, data)
            if self._current is not None:
                self._last = data
            return data

        return __next__

    def _epoch_over(self, facts: LoaderFacts) -> None:
        """End the training with its last epoch; loaders that are made anew for each epoch count as one."""
        if facts.training:
            kind = (facts.dataset, facts.samples_total, facts.batch_size)
            self._epochs[kind] += 1
            if self._epochs[kind] == self._probe.until_epoch:
                self._hooks.end()

    def _watch_fetcher(self, iterator: Any, epoch: Epoch) -> None:
        """At the first batch: the iterator makes its fetcher after all that is hooked in its making."""
        detailed = self._probe.detailed
        if detailed is None or epoch.watched or isinstance(iterator, _WorkersIterator):
            return
        epoch.watched = True
        fetcher = internals.FETCHER.of(iterator)
        detailed.watch_fetcher(fetcher, loader=epoch.number, epoch=epoch.facts.epochs - 1)

    def _next_index(self, original: Any) -> Any:
        def _next_index(iterator: Any) -> Any:
            epoch: Epoch | None = getattr(iterator, _MARK, None)
            if epoch is not None and epoch.begun == epoch.most:
                _exhaust(internals.SAMPLER_ITERATOR.of(iterator), epoch.facts)
                raise StopIteration
            index = original(iterator)
            if epoch is not None:
                epoch.begun += 1
            if epoch is not None and epoch.indexed and self._hooks.observing:
                indices = Indices.read(index)
                if isinstance(iterator, _WorkersIterator):
                    epoch.drawn[internals.NEXT_TASK.of(iterator)] = indices
                else:
                    epoch.taken = indices
            return index

        return _next_index

    def _process_data(self, original: Any) -> Any:
        def _process_data(iterator: Any, *args: Any, **kwargs: Any) -> Any:
            epoch: Epoch | None = getattr(iterator, _MARK, None)
            if epoch is not None and epoch.drawn:
                # The task of this batch was just taken off the list; a batch that lies ready is still on it.
                tasks = internals.TASKS.of(iterator)
                done = [task for task in epoch.drawn if task not in tasks]
                epoch.taken = epoch.drawn.pop(done[0]) if done else None
            if epoch is not None:
                bound = torch_internals.bind(original, iterator, *args, **kwargs)
                epoch.worker = bound.arguments["worker_idx"]
            return original(iterator, *args, **kwargs)

        return _process_data

    # Loaders of other kinds

    def enter(self, loader: Iterable[Any], most: int | None = None) -> Iterator[Any]:
        """Begin an epoch; of `most` batches, where the loader's own iterator is torch's and asks a sampler for them.

        Its sampler ends there, so that workers read no further ahead than they would at the end of an epoch.
        """
        self._current = None
        if isinstance(loader, DataLoader):
            return self._enter_data_loader(loader, most)
        number = self._number(loader)
        facts = self._probe.loaders[number]
        self._current, self._made_now = Epoch(number=number, facts=facts, indexed=False), 0
        batches = iter(loader)
        if batches is not loader or not facts.epochs:  # an iterator goes on where it was
            facts.epochs += 1
        return batches

    def _enter_data_loader(self, loader: DataLoader[Any], most: int | None) -> Iterator[Any]:
        is_torchs = type(loader).__iter__ is DataLoader.__iter__
        if is_torchs and not isinstance(loader.dataset, IterableDataset):
            self._shortened, self._most = loader, most
        try:
            batches: Iterator[Any] = iter(loader)
        finally:
            self._shortened = None
        if not isinstance(batches, _BaseIterator):
            # Batches that go through the subclass's own hands, perhaps from another thread.
            number = self._number(loader)
            facts = self._probe.loaders[number]
            self._current = Epoch(number=number, facts=facts, indexed=False)
        return batches

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """The next batch; one that a DataLoader handed out unchanged has been observed by then."""
        if self._current is None:
            return next(batches)
        self._hooks.settle()
        self._last = None
        with self._hooks.fetching():
            batch = next(batches)
        if batch is not self._last:
            # What a DataLoader handed out was counted by then, if this is made of it.
            self._observe(self._current, batch, counts=not self._counted(self._last))
        self._last = None
        return batch

    def skip(self, loader: Any, batches: Iterator[Any], taken: int, most: int) -> bool:
        """Take what is left of an epoch, unobserved; whether it ended within `most` batches.

        Nothing is taken where the loader's length says that it would not.
        """
        epoch: Epoch | None = getattr(batches, _MARK, None)
        if epoch is None or epoch.most is None:
            length = self._length(loader)
            if length is not None and length - taken > most:
                return False
        nothing = object()
        self._inside += 1
        try:
            with self._hooks.fetching():
                return any(next(batches, nothing) is nothing for _ in range(most + 1))
        finally:
            self._inside -= 1

    def _length(self, loader: Any) -> int | None:
        """Batches in an epoch, as far as that can be asked."""
        if isinstance(loader, DataLoader):
            return self._probe.loaders[self._number(loader)].batches_per_epoch
        with suppress(Exception):
            return len(loader)
        return None

    # Both

    def _number(self, loader: Any) -> int:
        """Loaders are numbered as they are first iterated.

        What a plain loader makes anew for each of its epochs is one loader, in a training that is resumed too.
        """
        number = self._known.get(loader)
        if number is None:
            number = next((known for other, known in self._unreferable if other is loader), None)
        if number is None:
            number = self._number_anew(loader)
            try:
                self._known.set(loader, number)
            except TypeError:  # a list has no weak references
                self._unreferable.append((loader, number))
        return number

    def _number_anew(self, loader: Any) -> int:
        if self._current is not None:
            self._made_now += 1
            if self._made_now <= len(self._made):
                return self._made[self._made_now - 1]
        number = len(self._probe.loaders)
        self._probe.loaders.append(_facts_of(loader))
        self._distinct.append(set())
        if self._current is not None:
            self._made.append(number)
        return number

    def _counted(self, inner: object) -> bool:
        """Whether a batch within the one under way was counted, by the same loader."""
        return inner is not None and self._current is not None and self._current.facts.torch

    def _observe(self, epoch: Epoch, data: Any, *, counts: bool = True) -> None:
        """The circumstances first, so that they come before what they explain."""
        taken, epoch.taken = epoch.taken, None
        recorder = self._hooks.recorder
        if taken is not None:
            recorder.context(_DATA, f"{epoch.name}.indices", taken.digest, taken.meta)
        if self._probe.detailed is not None and epoch.worker is not None:
            text = str(epoch.worker)
            bits = xxhash.xxh3_128_digest(text.encode())
            recorder.context(_DATA, f"{epoch.name}.worker", bits, text)
        self._hooks.generators(_DATA)
        recorder.tree(_DATA, epoch.name, data)
        if not counts:
            return
        facts = epoch.facts
        facts.batches += 1
        if taken is not None and taken.samples:
            distinct = self._distinct[epoch.number]
            distinct.update(taken.samples)
            facts.samples = len(distinct)
        else:
            epoch.samples += _batch_size(data)
            facts.samples = max(facts.samples, epoch.samples)


def _exhaust(indices: Iterator[Any], facts: LoaderFacts) -> None:
    """Read a sampler to its end, where some draw once more; of one without a length there may be no end."""
    told = _MOST_UNTOLD if facts.batches_per_epoch is None else facts.batches_per_epoch
    deque(islice(indices, min(told, _MOST_INDICES // (facts.batch_size or 1))), maxlen=0)


def _facts_of(loader: Any) -> LoaderFacts:
    if not isinstance(loader, DataLoader):
        return LoaderFacts(torch=False, dataset=type(loader).__name__, training=True)
    facts = LoaderFacts(
        torch=True,
        num_workers=loader.num_workers,
        batch_size=loader.batch_size or getattr(loader.batch_sampler, "batch_size", None),
        persistent=loader.persistent_workers,
        dataset=type(loader.dataset).__name__,
    )
    if not isinstance(loader.dataset, IterableDataset):
        # len() of a loader over an IterableDataset makes it warn later; of a map-style one, torch asks it too.
        with suppress(Exception):
            facts.samples_total = len(loader.dataset)  # type: ignore[arg-type]
        if type(loader).__len__ is DataLoader.__len__:
            with suppress(Exception):
                facts.batches_per_epoch = len(loader)
    return facts


def _batch_size(data: Any) -> int:
    """Samples in a batch, by the first tensor's first dimension; a batch without one counts as one."""
    with suppress(Exception):  # the recorder has said already what could not be read
        for _, leaf in leaves(data):
            if isinstance(leaf, torch.Tensor) and leaf.dim():
                return leaf.shape[0]
    return 1
