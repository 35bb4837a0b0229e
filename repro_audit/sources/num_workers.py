"""The number of DataLoader workers decides what each sample looks like.

## What it does
The audit gives every DataLoader 0, 1 and 2 workers in place of the program's own number (pinned). Another result
convicts it, and the report says which numbers agree. The runs that differ are repeated with the fix in place, each
sample seeded by its index and the loader's base seed: if they then agree, the fix is proven. It breaks the promise
`settings`: the same command with the same number may still repeat. *Same*: all numbers give the same. *Not tried*
where no `torch.utils.data.DataLoader` was iterated.

## Why it breaks reproducibility
Without workers, samples are made in the main process and draw from its generators, between the draws of the model.
With workers, PyTorch seeds worker `i` with `base_seed + i`, and batches go to the workers in turn. So the number of
workers decides from which stream a sample draws, and what was drawn from it before; and samples made in workers no
longer move the main process's generators, from which dropout draws.

## Example
Each sample draws its noise from whatever generator is at hand.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.full((8,), index / 64) + torch.randn(8)
        return x, x.sum(0, keepdim=True)


def build(seed):
    torch.manual_seed(seed)
    return nn.Linear(8, 1), DataLoader(Noisy(), batch_size=8, num_workers=1)
```

## Use instead
The noise of a sample follows from the seed, the epoch and its index, whoever makes it.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler


class Noisy(Dataset):
    def __init__(self, seed):
        self.seed = seed

    def __len__(self):
        return 64

    def __getitem__(self, key):
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        x = torch.full((8,), index / 64) + torch.from_numpy(
            rng.standard_normal(8, "float32")
        )
        return x, x.sum(0, keepdim=True)


# hands the epoch out with each index, so that workers know it
class WithEpoch(Sampler):
    def __init__(self, size):
        self.size, self.epoch = size, -1

    def __len__(self):
        return self.size

    def __iter__(self):
        self.epoch += 1
        return iter([(self.epoch, index) for index in range(self.size)])


def build(seed):
    torch.manual_seed(seed)
    loader = DataLoader(
        Noisy(seed), batch_size=8, sampler=WithEpoch(64), num_workers=1
    )
    return nn.Linear(8, 1), loader
```

## References
- PyTorch: Randomness in multi-process data loading:
  <https://docs.pytorch.org/docs/stable/data.html#data-loading-randomness>
- The random numbers of samples depend on the number of workers: <https://github.com/pytorch/pytorch/pull/15170>
- Random transforms differ between no workers and some: <https://github.com/meta-pytorch/torchtune/issues/168>
"""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.option import Kind, Option
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict, listed
from repro_audit.storage.facts import AMBIENT
from repro_audit.torch_internals import loaders as internals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.context import TrialContext
    from repro_audit.experiment import Judgement
    from repro_audit.storage.facts import Facts

PINNED, PER_SAMPLE = "as written", "seeded per sample"
WORKERS = Option(
    name="workers",
    kind=Kind.INTEGERS,
    default=(0, 1, 2),
    minimum=0,
    help="Numbers of DataLoader workers to try.",
)


def levels(facts: Facts) -> Levels | str:
    """None, one and two workers; without the number that the program has in all of its loaders."""
    if not facts.loaders:
        return facts.seen("no torch.utils.data.DataLoader was iterated")
    own = {loader["num_workers"] for loader in facts.loaders}
    varied = tuple(str(count) for count in WORKERS.of(facts) if own != {count})
    if not varied:
        return f"every DataLoader has num_workers={min(own)} anyway"
    return Levels(varied=varied, removal=PER_SAMPLE, masks_others=("0",))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Give every DataLoader the level's number of workers when it is iterated; `PER_SAMPLE` is the fix."""
    count, _, fixed = level.partition(", ")
    with Replacements() as replacements:
        if PER_SAMPLE in {level, fixed}:
            trial.when_imported("torch", lambda: _seed_each_sample(replacements))
        if count.isdecimal():
            trial.when_imported("torch", lambda: _set_workers(int(count), replacements))
        yield


def _set_workers(count: int, replacements: Replacements) -> None:
    loader_class = sys.modules["torch"].utils.data.DataLoader
    iterate = loader_class.__iter__

    def with_count(loader: Any) -> Any:
        # Past DataLoader.__setattr__, which refuses changes after construction; the rules are those of its __init__.
        loader.__dict__["num_workers"] = count
        if count == 0:
            loader.__dict__.update(prefetch_factor=None, persistent_workers=False, timeout=0)
        elif loader.prefetch_factor is None:
            loader.__dict__["prefetch_factor"] = 2
        return iterate(loader)

    replacements.attribute(loader_class, "__iter__", with_count)


def _seed_each_sample(replacements: Replacements) -> None:
    """The fix: a sample's randomness follows from its index and the epoch, not from who fetches it."""
    from repro_audit import rng

    data: Any = sys.modules["torch"].utils.data
    base_seed = 0
    fetch, next_data = internals.FETCH.get(), internals.NEXT_DATA.get()

    class Seeded:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __getitem__(self, index: Any) -> Any:
            info = data.get_worker_info()
            base = info.seed - info.id if info else base_seed
            with rng.fork_rng():
                _seed((base + hash(index)) % rng.SEED_LIMIT)
                return self.dataset[index]

    def fetch_seeded(fetcher: Any, index: Any) -> Any:
        if not isinstance(fetcher.dataset, Seeded):
            fetcher.dataset = Seeded(fetcher.dataset)
        return fetch(fetcher, index)

    def next_data_noting_seed(iterator: Any) -> Any:
        nonlocal base_seed
        base_seed = internals.BASE_SEED.of(iterator)
        return next_data(iterator)

    replacements.attribute(*internals.FETCH.spot(), fetch_seeded)
    replacements.attribute(*internals.NEXT_DATA.spot(), next_data_noting_seed)


def _seed(number: int) -> None:
    """Seed all generators that are there; a seed that waits for CUDA is kept with a stack, which takes long."""
    torch = sys.modules["torch"]
    random.seed(number)
    sys.modules["numpy"].random.seed(number)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the numbers that were tried."""
    return Verdict.of(
        judgement,
        held=f"{listed(map(str, WORKERS.of(facts)))} workers give the same",
        broke="another number of DataLoader workers gives other samples, or another order of them",
    )


def fix(_facts: Facts) -> Fix:
    """Draw by index."""
    return Fix(
        summary="Let a sample's random numbers follow from its index and the epoch, not from the worker that fetches "
        "it. Or keep num_workers fixed wherever the numbers must agree.",
        snippet="def __getitem__(self, index):\n"
        "    rng = np.random.default_rng((self.seed, self.epoch, index))\n"
        "    x = self.x[index]\n"
        "    return x + rng.normal(size=x.shape), self.y[index]",
    )


def fix_of_draw(generator: str) -> Fix | None:
    """A generator that the dataset owns: nothing that seeds the ambient ones, or the sampler, reaches it."""
    if generator in AMBIENT or generator.startswith("cuda"):
        return None
    return Fix(
        summary=f"Make a generator in __getitem__ for each sample, from the seed, the epoch and the index, in place of "
        f"{generator}, of which each worker draws from a copy. Seeding the ambient generators or the sampler does not "
        "reach it.",
        snippet="def __getitem__(self, index):\n"
        "    rng = np.random.default_rng((self.seed, self.epoch, index))\n"
        f"    ...  # draw from rng, not from {generator}",
    )


def pinned_fix(facts: Facts) -> Fix:
    """For a difference that is not in how samples are made: their order, or who shares out the work."""
    count = facts.loaders[0]["num_workers"] if facts.loaders else 0
    return Fix(
        summary="Keep num_workers fixed wherever the numbers must agree. Where only the order of the samples changes, "
        "give the sampler a generator that nothing else draws from: the loader draws from its own.",
        snippet="order = torch.Generator().manual_seed(seed)\n"
        "loader = DataLoader(\n"
        "    dataset,\n"
        "    sampler=RandomSampler(dataset, generator=order),\n"
        f"    num_workers={count},\n"
        ")",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    options=(WORKERS,),
    internals=(internals.FETCH, internals.NEXT_DATA, internals.BASE_SEED),
    apply=apply,
    judge=judge,
    fix=fix,
    fix_of_draw=fix_of_draw,
    pinned_fix=pinned_fix,
)
