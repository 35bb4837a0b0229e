"""Which generators DataLoader workers draw from, and which of them draw the same."""

from __future__ import annotations

import gc
import inspect
import random
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info

from repro_audit.probe.steps.workers import (
    SharedStream,
    Stream,
    owned_generators,
    read_streams,
    shared_streams,
)
from repro_audit.replacements import Replacements
from tests.probing import watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OF_THE_MODULE = np.random.default_rng(5)


class Data(Dataset[Any]):
    """Samples made by a function of the dataset and the index."""

    def __init__(self, sample: Callable[[Any, int], object], rng: Any = None) -> None:
        self.sample = sample
        self.rng = rng

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> object:
        return self.sample(self, index)


class Counting(IterableDataset[Any]):
    """Reseeds its generator for each worker, as PyTorch's notes show it."""

    def __init__(self, *, reseeds: bool) -> None:
        self.rng = np.random.RandomState(0)
        self.reseeds = reseeds

    def __iter__(self) -> Iterator[float]:
        info = get_worker_info()
        if self.reseeds and info is not None:
            self.rng.seed(info.seed % 2**32)
        for _ in range(4):
            yield self.rng.rand()


class Sharing(IterableDataset[Any]):
    """All workers shuffle alike, and each takes its part."""

    def __init__(self) -> None:
        self.rng = random.Random(0)

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        assert info is not None
        numbers = list(range(8))
        self.rng.shuffle(numbers)
        return iter(numbers[info.id :: info.num_workers])


def drawing(self: Any, _index: int) -> object:
    return float(self.rng.random())


def drawing_torch(self: Any, _index: int) -> object:
    return torch.rand(1, generator=self.rng)


def drawing_ambient(_self: Any, _index: int) -> object:
    return random.random() + np.random.rand() + torch.rand(1)


def drawing_module(_self: Any, _index: int) -> object:
    return OF_THE_MODULE.random()


def local(_self: Any, index: int) -> object:
    return np.random.default_rng(index).random() + random.Random(index).random()


def reseeding(self: Any, index: int) -> object:
    """An owned generator that each sample seeds by its index."""
    if isinstance(self.rng, torch.Generator):
        self.rng.manual_seed(index)
        return torch.rand(1, generator=self.rng)
    self.rng.seed(index)
    return self.rng.random()


def replacing(self: Any, _index: int) -> object:
    """An owned generator that each worker replaces when it first needs it."""
    if "own" not in vars(self):
        info = get_worker_info()
        self.own = np.random.default_rng(info.seed if info else 0)
    return self.own.random()


def untouched(_self: Any, index: int) -> object:
    return index


def seed_worker(_worker_id: int) -> None:
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)


def seed_all_alike(_worker_id: int) -> None:
    np.random.seed(0)


def seed_by_worker(worker_id: int) -> None:
    random.seed(42 + worker_id)


def seed_owned(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.rng.seed(info.seed + worker_id)  # type: ignore[attr-defined]


def streams_of(directory: Path, loader: DataLoader[Any], epochs: int = 2) -> list[Stream]:
    """What the workers of a loader wrote."""
    torch.manual_seed(0)
    path = directory / "workers.jsonl"
    with watching(directory, workers=path):
        for _ in range(epochs):
            list(loader)
    return read_streams(path)


def found(streams: list[Stream]) -> set[tuple[str, str]]:
    return {(shared.kind, shared.generator) for shared in shared_streams(streams)}


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 2, "num_workers": 2, **options})


GUILTY: dict[str, tuple[Callable[[], DataLoader[Any]], set[tuple[str, str]]]] = {
    "RandomState": (
        lambda: loader_of(Data(drawing, rng=np.random.RandomState(0))),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "Generator": (
        lambda: loader_of(Data(drawing, rng=np.random.default_rng(0))),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "SFC64, told by its states": (
        lambda: loader_of(Data(drawing, rng=np.random.Generator(np.random.SFC64(0)))),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "random.Random": (
        lambda: loader_of(Data(drawing, rng=random.Random(0))),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "torch": (
        lambda: loader_of(Data(drawing_torch, rng=torch.Generator().manual_seed(0))),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "workers that persist go on": (
        lambda: loader_of(Data(drawing, rng=random.Random(0)), persistent_workers=True),
        {("workers", "dataset.rng")},
    ),
    "one worker repeats its epochs": (
        lambda: loader_of(Data(drawing, rng=random.Random(0)), num_workers=1),
        {("epochs", "dataset.rng")},
    ),
    "in a subset": (
        lambda: loader_of(Subset(Data(drawing, rng=random.Random(0)), range(4))),
        {("workers", "dataset.dataset.rng"), ("epochs", "dataset.dataset.rng")},
    ),
    "at the top of a module": (
        lambda: loader_of(Data(drawing_module)),
        {("workers", f"{__name__}.OF_THE_MODULE"), ("epochs", f"{__name__}.OF_THE_MODULE")},
    ),
    "iterable": (
        lambda: loader_of(Counting(reseeds=False)),
        {("workers", "dataset.rng"), ("epochs", "dataset.rng")},
    ),
    "a worker_init_fn that seeds all alike": (
        lambda: loader_of(Data(drawing_ambient), worker_init_fn=seed_all_alike),
        {("workers", "ambient numpy"), ("epochs", "ambient numpy")},
    ),
    "a worker_init_fn that seeds by the worker": (
        lambda: loader_of(Data(drawing_ambient), worker_init_fn=seed_by_worker),
        {("epochs", "ambient python")},
    ),
}

INNOCENT: dict[str, Callable[[], DataLoader[Any]]] = {
    "PyTorch's own seeding": lambda: loader_of(Data(drawing_ambient)),
    "seed_worker": lambda: loader_of(Data(drawing_ambient), worker_init_fn=seed_worker),
    "made for each sample": lambda: loader_of(Data(local)),
    "never drawn from": lambda: loader_of(Data(untouched, rng=random.Random(0))),
    "seeded for each sample": lambda: loader_of(Data(reseeding, rng=np.random.RandomState(0))),
    "seeded for each sample, Python": lambda: loader_of(Data(reseeding, rng=random.Random(0))),
    "seeded for each sample, torch": lambda: loader_of(Data(reseeding, rng=torch.Generator())),
    "replaced": lambda: loader_of(Data(replacing)),
    "seeded in __iter__": lambda: loader_of(Counting(reseeds=True)),
    "seeded by worker_init_fn": lambda: loader_of(
        Data(drawing, rng=random.Random(0)), worker_init_fn=seed_owned
    ),
    "sharing out": lambda: loader_of(Sharing()),
    "no workers": lambda: loader_of(Data(drawing, rng=random.Random(0)), num_workers=0),
}


@pytest.mark.parametrize("name", GUILTY)
def test_shared_streams_are_found(tmp_path: Path, name: str) -> None:
    make, expected = GUILTY[name]
    assert found(streams_of(tmp_path, make())) == expected


@pytest.mark.parametrize("name", INNOCENT)
def test_nobody_is_accused_without_cause(tmp_path: Path, name: str) -> None:
    assert found(streams_of(tmp_path, INNOCENT[name]())) == set()


def test_what_an_innocent_worker_writes(tmp_path: Path) -> None:
    """The twin: clean because nothing is shared, not because nothing was seen."""
    streams = streams_of(tmp_path, INNOCENT["seed_worker"]())
    names = {"ambient python", "ambient numpy", "ambient torch"}
    places = {(stream.epoch, stream.worker, stream.generator) for stream in streams}
    assert places == {(e, w, name) for e in (0, 1) for w in (0, 1) for name in names}
    assert all(stream.continued for stream in streams)


def test_an_evaluation_may_repeat_itself(tmp_path: Path) -> None:
    loader = GUILTY["one worker repeats its epochs"][0]()
    with torch.no_grad():
        assert found(streams_of(tmp_path, loader)) == set()


@pytest.mark.audit
def test_workers_that_are_not_forked(tmp_path: Path) -> None:
    """In an interpreter of its own, since forkserver leaves a server behind."""
    (tmp_path / "program.py").write_text(
        "import random\n"
        "from torch.utils.data import Dataset\n"
        "class Data(Dataset):\n"
        "    def __init__(self): self.rng = random.Random(0)\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, index):\n"
        "        open(__file__).close()\n"
        "        return self.rng.random()\n"
    )
    (tmp_path / "main.py").write_text(
        "import sys, pathlib\n"
        f"sys.path[:] = {[str(tmp_path), *sys.path]!r}\n"
        "if __name__ == '__main__':\n"
        "    from torch.utils.data import DataLoader\n"
        "    from program import Data\n"
        "    from repro_audit.probe import files\n"
        "    from repro_audit.probe.steps.workers import read_streams, shared_streams\n"
        "    from tests.probing import watching\n"
        "    here = pathlib.Path(__file__).parent\n"
        "    files.install(here, here / 'files.jsonl')\n"
        "    with watching(here, workers=here / 'workers.jsonl'):\n"
        "        for method in ('spawn', 'forkserver'):\n"
        "            list(DataLoader(Data(), num_workers=2, multiprocessing_context=method))\n"
        "    for shared in shared_streams(read_streams(here / 'workers.jsonl')):\n"
        "        print(shared.loader, shared.kind, shared.generator)\n"
        "    print(*{(o.path, o.line) for o in files.read_openings(here / 'files.jsonl')\n"
        "            if o.line == 7})\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")], check=False, capture_output=True, text=True
    )
    expected = "0 workers dataset.rng\n1 workers dataset.rng\n('program.py', 7)\n"
    assert done.stdout == expected, done.stderr


def test_loaders_and_epochs_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "workers.jsonl"
    first, second = (loader_of(Data(drawing, rng=random.Random(seed))) for seed in (0, 1))
    with watching(tmp_path, workers=path):
        list(first)
        list(second)
        list(first)
    places = {(stream.loader, stream.epoch, stream.worker) for stream in read_streams(path)}
    assert places == {(number, 0, worker) for number in (0, 1) for worker in (0, 1)} | {
        (0, 1, worker) for worker in (0, 1)
    }


def test_a_dataset_that_raises_is_the_programs_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(_self: Any, _index: int) -> object:
        raise LookupError

    # What is collected with a traceback waits so long for each of its workers.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    with pytest.raises(LookupError):
        streams_of(tmp_path, loader_of(Data(raises)))
    gc.collect()


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    with watching(tmp_path):
        list(GUILTY["RandomState"][0]())
    assert [each.name for each in tmp_path.iterdir()] == ["trace"]


# Reading


STREAM = Stream(
    loader=0,
    epoch=0,
    worker=0,
    generator="dataset.rng",
    start="aa",
    after="bb",
    continued=True,
    training=True,
)


def test_streams_are_shared_only_where_all_agrees() -> None:
    second = replace(STREAM, worker=1)
    assert shared_streams([second, STREAM]) == [
        SharedStream(kind="workers", generator="dataset.rng", loader=0, first=(0, 0), second=(0, 1))
    ]
    assert shared_streams([STREAM, replace(second, after="cc")])
    untold = replace(STREAM, continued=None)
    assert shared_streams([untold, replace(untold, worker=1)])
    for other in (
        replace(second, start="cc"),
        replace(second, loader=1),
        replace(second, generator="dataset.other"),
        replace(second, epoch=1),
        replace(second, continued=False),
        replace(second, continued=None),
    ):
        assert shared_streams([STREAM, other]) == []
    assert shared_streams([untold, replace(untold, worker=1, after="cc")]) == []
    assert shared_streams([]) == []


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "workers.jsonl"
    assert read_streams(path) == []
    path.write_text('{"loader": 0}\n[1]\n{"lo')
    assert read_streams(path) == []


def test_reading_needs_no_torch() -> None:
    script = "import sys, repro_audit.probe.steps.workers, repro_audit.probe.files; "
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Finding generators


class Slotted:
    __slots__ = ("empty", "rng")

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng


class WithClassAttribute:
    rng = random.Random(3)


class Touchy:
    """Nothing of its own may be called."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def __repr__(self) -> str:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError

    @property
    def trap(self) -> random.Random:
        raise AssertionError


def make_closure(rng: random.Random) -> Callable[[], float]:
    def draw() -> float:
        return rng.random()

    return draw


@pytest.mark.parametrize(
    ("hold", "name"),
    [
        (lambda rng: rng, "d"),
        (lambda rng: [0, {"a": (rng,)}], "d.1.a.0"),
        (Slotted, "d.rng"),
        (Touchy, "d.rng"),
        (make_closure, "d.rng"),
        (lambda rng: rng.random, None),
        (lambda rng: Touchy(rng).__repr__, "d.__self__.rng"),
        (lambda rng: partial(print, rng, flush=True), "d.args.0"),
        (lambda rng: partial(print, end=rng), "d.keywords.end"),
        (lambda _: torch.Generator(), "d"),
        (lambda _: np.random.default_rng(0), "d"),
        (lambda _: WithClassAttribute(), "d.rng"),
        (
            lambda _: [torch.ones(2), np.ones(2), "text", 3, int, random, random.SystemRandom()],
            None,
        ),
    ],
)
def test_generators_are_found_wherever_they_are_held(
    hold: Callable[[random.Random], object], name: str | None
) -> None:
    names = set(owned_generators({"d": hold(random.Random(1))}))
    assert names - {f"{__name__}.OF_THE_MODULE"} == ({name} if name else set())


def test_objects_that_hold_each_other() -> None:
    loop: list[Any] = [random.Random(1)]
    loop.append(loop)
    assert set(owned_generators({"d": loop})) >= {"d.0"}
    many = [[number] for number in range(100_000)]
    owned_generators({"d": [many] * 100})


def test_stand_ins_for_the_worker_loop_show_its_arguments(tmp_path: Path) -> None:
    """The line-level probe asks whatever stands there for the worker's number."""
    from torch.utils.data._utils import worker

    from repro_audit.sources import worker_seed
    from repro_audit.sources.emulation import turns as _turns

    with _turns.in_order(_turns.IN_TURN, tmp_path / "turns"), Replacements() as replacements:
        worker_seed._perturb_workers(replacements)
        assert "worker_id" in inspect.signature(worker._worker_loop).parameters
