"""What DataLoader workers see of random generators, and the finding that two of them draw the same numbers.

A generator that the dataset owns is copied into every worker with the same state, under fork and under spawn; so is
one at the top level of the program's modules. PyTorch seeds only the ambient ones. Each worker writes down which of its
generators it drew from in an epoch, and from which state on; `shared_streams` reads that.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from repro_audit import torch_internals
from repro_audit.storage.border import append, entries
from repro_audit.torch_internals import loaders as internals


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A generator in one worker in one epoch of one loader, that was drawn from."""

    loader: int
    epoch: int
    worker: int
    generator: str
    """`ambient numpy`, `dataset.transform.rng`, or `train.rng` for one at the top level of a module."""
    start: str
    """Digest of its state when the epoch began."""
    after: str
    """Digest of its state after the first batch that drew from it."""
    continued: bool | None
    """The state after came from the start by drawing alone; None where that can't be told."""
    training: bool
    """Gradients were on when the epoch began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStream:
    """Two epochs of workers that drew the same numbers."""

    kind: str
    """`workers`: two workers in one epoch; `epochs`: one worker in two epochs."""
    generator: str
    loader: int
    first: tuple[int, int]
    """Epoch and worker; so is `second`."""
    second: tuple[int, int]


def read_streams(path: Path) -> list[Stream]:
    """What the workers of a trial wrote; a line that was torn by a killed worker is left out."""
    return list(entries(path, Stream))


def shared_streams(records: Iterable[Stream]) -> list[SharedStream]:
    """Find workers, or epochs, that began a stream in the same state and drew from it.

    A repeated epoch counts in training only: an evaluation that draws the same numbers each time is as it should be.
    """
    by_start: dict[tuple[int, str, str], list[Stream]] = defaultdict(list)
    for stream in sorted(
        records, key=lambda each: (each.loader, each.generator, each.epoch, each.worker)
    ):
        by_start[stream.loader, stream.generator, stream.start].append(stream)
    found: dict[tuple[str, int, str], SharedStream] = {}
    for (loader, generator, _), streams in by_start.items():
        for number, second in enumerate(streams):
            for first in streams[:number]:
                kind = _shared(first, second)
                if kind:
                    found.setdefault(
                        (kind, loader, generator),
                        SharedStream(
                            kind=kind,
                            generator=generator,
                            loader=loader,
                            first=(first.epoch, first.worker),
                            second=(second.epoch, second.worker),
                        ),
                    )
    return list(found.values())


def _shared(first: Stream, second: Stream) -> str:
    """How two streams of equal start are the same one; an empty string where they may not be.

    A generator that each sample seeds by its index starts alike everywhere, and is no shared stream.
    """
    known = first.continued and second.continued
    alike = first.continued is second.continued is None and first.after == second.after
    if not known and not alike:
        return ""
    if first.epoch == second.epoch and first.worker != second.worker:
        return "workers"
    repeats = first.worker == second.worker and first.epoch != second.epoch
    return "epochs" if repeats and first.training and second.training else ""


# In a worker


class Fetches(Protocol):
    """Writes of batches."""

    def watch(self, fetcher: Any, *, loader: int, epoch: int, worker: int) -> None:
        """Write of each batch that a fetcher of torch's makes from now on."""
        ...


class Observer(Protocol):
    """What the detailed probe writes of one worker."""

    @property
    def fetches(self) -> Fetches:
        """Writes of this worker's batches."""
        ...

    def close(self) -> None:
        """Observe no more."""
        ...

    def flush(self) -> None:
        """Write what is not on disk yet."""
        ...


class Detail(Protocol):
    """What of a worker the detailed probe shall write; spawn pickles it."""

    def begin(self, *, loader: int, epoch: int, worker: int) -> Observer:
        """In a worker: begin to write."""
        ...


@dataclass(kw_only=True)
class WorkerLoop:
    """Stands in for torch's `_worker_loop` as the target of a worker process; spawn pickles it."""

    path: str
    loader: int
    epoch: int
    training: bool
    seeded: bool
    """The loader has a `worker_init_fn`. Without one, PyTorch has seeded every ambient generator differently."""
    files: tuple[str, str] | None
    """What `files.install` was given, for workers that begin as new interpreters."""
    detail: Detail | None = None
    """What to write of lines, draws and files, where a detailed trace is wanted."""
    prepare: Callable[[], None] | None = None
    """Called as this is unpickled in a new interpreter: before the dataset is, whose module that imports."""
    original: Callable[..., None] | None
    """Torch's own loop, where this process inherits it."""
    maker: int = field(default_factory=os.getpid)
    """The process that iterates the loader."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "original": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.prepare is not None:
            self.prepare()

    def __call__(self, *args: Any) -> None:
        """Run torch's loop, with this worker's generators watched."""
        from repro_audit.probe import files

        if os.getpid() == self.maker and self.original is not None:
            # A thread that stands for a process: what it would watch is the training's own, and all workers'.
            self.original(*args)
            return
        if self.files is not None:
            files.install(*map(Path, self.files))
        loop = self.original or internals.WORKER_LOOP.get()
        parts = self._begin_detail(loop, args)
        watch = _Watch(self, internals.MAKE_FETCHER.get(), parts)
        internals.MAKE_FETCHER.put(staticmethod(watch.create_fetcher))
        try:
            loop(*args)
        finally:
            if parts is not None:
                parts.close()
                parts.flush()

    def _begin_detail(self, loop: Callable[..., None], args: tuple[Any, ...]) -> Observer | None:
        if self.detail is None:
            return None
        worker = torch_internals.bind(loop, *args).arguments["worker_id"]
        return self.detail.begin(loader=self.loader, epoch=self.epoch, worker=worker)


class _Watch:
    """The generators of one worker."""

    def __init__(
        self, loop: WorkerLoop, create_fetcher: Callable[..., Any], parts: Observer | None
    ) -> None:
        self._loop = loop
        self._parts = parts
        self._create_fetcher = create_fetcher
        self._epoch = loop.epoch - 1
        self._watched: list[_Watched] = []

    def create_fetcher(self, *args: Any, **kwargs: Any) -> Any:
        """Torch makes a fetcher at the start of each epoch, after the user's `worker_init_fn`."""
        self._epoch += 1
        bound = torch_internals.bind(self._create_fetcher, *args, **kwargs)
        collate_fn = bound.arguments["collate_fn"]
        with suppress(
            Exception
        ):  # a defect of ours, or an object that can't be looked at, is no error of the program's
            self._begin(bound.arguments["dataset"], collate_fn)

        def collate(samples: Any) -> Any:
            batch = collate_fn(samples)
            with suppress(Exception):
                self._look()
            return batch

        bound.arguments["collate_fn"] = collate
        fetcher = self._create_fetcher(*bound.args, **bound.kwargs)
        if self._parts is not None:
            self._parts.fetches.watch(
                fetcher, loader=self._loop.loader, epoch=self._epoch, worker=_worker_number()
            )
        return fetcher

    def _begin(self, dataset: Any, collate_fn: Any) -> None:
        from torch.utils.data import IterableDataset

        from repro_audit.probe.digest import generators

        found = owned_generators({"dataset": dataset, "collate_fn": collate_fn})
        if self._loop.seeded:
            found |= generators.ambient_generators()
        # Workers that share out an iterable dataset shuffle it alike on purpose, before their first sample.
        draws = 2 if isinstance(dataset, IterableDataset) else 1
        self._watched = [
            _Watched(name, generator, generators, draws) for name, generator in found.items()
        ]

    def _look(self) -> None:
        """Write down each generator once enough batches have drawn from it."""
        for watched in list(self._watched):
            if watched.drawn():
                self._watched.remove(watched)
                self._write(watched)

    def _write(self, watched: _Watched) -> None:
        stream = Stream(
            loader=self._loop.loader,
            epoch=self._epoch,
            worker=_worker_number(),
            generator=watched.name,
            start=watched.start.hex(),
            after=watched.after.hex(),
            continued=watched.follows(),
            training=self._loop.training,
        )
        append(self._loop.path, stream)


def _worker_number() -> int:
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return info.id if info is not None else 0


class _Watched:
    """One generator in one epoch."""

    def __init__(self, name: str, generator: Any, generators: Any, draws: int) -> None:
        self.name = name
        self.start = self._last = generators.digest_of(generator)
        self.after = b""
        """The state after the first batch that drew."""
        self.follows: Callable[[], bool | None] = generators.begin(generator)
        self._generator = generator
        self._digest = generators.digest_of
        self._missing = draws

    def drawn(self) -> bool:
        """Whether by now as many batches have drawn from it as it takes; asked after each batch."""
        now = self._digest(self._generator)
        if now != self._last:
            self._last, self.after = now, self.after or now
            self._missing -= 1
        return self._missing == 0


# Finding generators


def owned_generators(roots: dict[str, Any]) -> dict[str, Any]:
    """The generators that objects hold, and those at the top level of the program's modules, by where they are."""
    from repro_audit.probe.digest.stored import inside, is_generator, walk
    from repro_audit.probe.files import program_modules

    at_top = (
        (f"{module}.{key}", value)
        for module, _, contents in program_modules()
        for key, value in list(contents.items())
        if is_generator(value)
    )
    found = walk(
        (*roots.items(), *at_top), lambda value: () if is_generator(value) else inside(value)
    )
    return {name: value for name, value in found if is_generator(value)}
