"""The number of DataLoader workers decides what each sample looks like.

DOC
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.source import Fix, Levels, Scope, Source, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

PINNED, PER_SAMPLE = "as written", "seeded per sample"


def levels(facts: Facts) -> Levels | str:
    """None, one and two workers; without the number that the program has in all of its loaders."""
    if not facts.loaders:
        return "no torch.utils.data.DataLoader was iterated"
    own = {loader["num_workers"] for loader in facts.loaders}
    return Levels(
        varied=tuple(str(count) for count in (0, 1, 2) if own != {count}), removal=PER_SAMPLE
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Give every DataLoader the level's number of workers when it is iterated; `PER_SAMPLE` is the mend."""
    count, _, mend = level.partition(", ")
    if level == PER_SAMPLE or mend == PER_SAMPLE:
        trial.when_imported("torch", _seed_each_sample)
    if count.isdecimal():
        trial.when_imported("torch", lambda: _set_workers(int(count)))
    yield


def _set_workers(count: int) -> None:
    loader_class = sys.modules["torch"].utils.data.DataLoader
    iterate = loader_class.__iter__

    def __iter__(loader: Any) -> Any:
        # Past DataLoader.__setattr__, which refuses changes after construction; the rules are those of its __init__.
        loader.__dict__["num_workers"] = count
        if count == 0:
            loader.__dict__.update(prefetch_factor=None, persistent_workers=False, timeout=0)
        elif loader.prefetch_factor is None:
            loader.__dict__["prefetch_factor"] = 2
        return iterate(loader)

    loader_class.__iter__ = __iter__


def _seed_each_sample() -> None:
    """The mend: a sample's randomness follows from its index and the epoch, not from who fetches it."""
    from torch.utils.data import _utils, dataloader, get_worker_info

    from repro_audit import rng

    base_seed = 0
    fetch = _utils.fetch._MapDatasetFetcher.fetch
    next_data = dataloader._SingleProcessDataLoaderIter._next_data

    class Seeded:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getitem__(self, index: Any) -> Any:
            info = get_worker_info()
            base = info.seed - info.id if info else base_seed
            with rng.fork_rng():
                rng.seed_everything((base + hash(index)) % 2**32, cudnn_flags=False)
                return self.dataset[index]

    def fetch_seeded(fetcher: Any, index: Any) -> Any:
        if not isinstance(fetcher.dataset, Seeded):
            fetcher.dataset = Seeded(fetcher.dataset)
        return fetch(fetcher, index)

    def next_data_noting_seed(iterator: Any) -> Any:
        nonlocal base_seed
        base_seed = iterator._base_seed
        return next_data(iterator)

    _utils.fetch._MapDatasetFetcher.fetch = fetch_seeded
    dataloader._SingleProcessDataLoaderIter._next_data = next_data_noting_seed


def fix(_facts: Facts) -> Fix:
    """Draw by index."""
    return Fix(
        summary="Let a sample's random numbers follow from its index and the epoch, not from the worker that fetches "
        "it. Or keep num_workers fixed wherever the numbers must agree.",
        snippet="def __getitem__(self, index):\n"
        "    rng = np.random.default_rng((self.seed, self.epoch, index))\n"
        "    return self.x[index] + rng.normal(size=self.x[index].shape), self.y[index]",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=in_words(
        held="0, 1 and 2 workers give the same",
        broke="another number of DataLoader workers gives another result",
    ),
    fix=fix,
)
