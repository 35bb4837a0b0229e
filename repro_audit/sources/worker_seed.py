"""Two DataLoader workers, or two epochs, draw the same random numbers.

## What it does
The audit watches the generators in each DataLoader worker: the ambient ones, those that the dataset owns (its
transforms included), and those at the top level of the program's modules. Two workers, or two epochs of training,
that begin in the same state and draw the same numbers convict it. Besides, the ambient generators of the workers
start as PyTorch seeds them (A), or from another state (B): a program whose samples follow that state relies on
PyTorch's own seeding, and that is *delegated*. *Same*: no shared stream, and B changes nothing. *Not tried* where
no DataLoader with workers was iterated.

## Why it breaks reproducibility
Each worker gets a copy of the dataset, and with it a copy of any generator that the dataset owns, in the same state.
PyTorch seeds `random`, `torch` and NumPy's global generator differently in each worker, but does not know of others.
So all workers draw the same numbers, and, unless workers persist, draw them again in the next epoch, from a fresh
copy. What should be random repeats, in a pattern that changes with the number of workers. A `worker_init_fn` that
seeds all workers alike does the same to the ambient generators.

## Example
Both workers draw the same noise, in every epoch.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Noisy(Dataset):
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.full((8,), index / 64) + torch.from_numpy(
            self.rng.standard_normal(8, "float32")
        )
        return x, x.sum(0, keepdim=True)


def build(seed):
    torch.manual_seed(seed)
    return nn.Linear(8, 1), DataLoader(
        Noisy(seed), batch_size=8, num_workers=2
    )
```

## Use instead
Each worker makes its generator from the seed that PyTorch gave it.

```python
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Noisy(Dataset):
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.full((8,), index / 64) + torch.from_numpy(
            self.rng.standard_normal(8, "float32")
        )
        return x, x.sum(0, keepdim=True)


def seed_worker(worker_id):
    info = get_worker_info()  # its seed differs by worker and by epoch
    info.dataset.rng = np.random.default_rng(info.seed)


def build(seed):
    torch.manual_seed(seed)
    loader = DataLoader(
        Noisy(seed), batch_size=8, num_workers=2, worker_init_fn=seed_worker
    )
    return nn.Linear(8, 1), loader
```

## References
- PyTorch: Randomness in multi-process data loading:
  <https://docs.pytorch.org/docs/stable/data.html#data-loading-randomness>
- PyTorch: My data loader workers return identical random numbers:
  <https://docs.pytorch.org/docs/stable/notes/faq.html#my-data-loader-workers-return-identical-random-numbers>
- Transforms with a random state of their own, alike in all workers:
  <https://github.com/Project-MONAI/MONAI/issues/398>
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.probe.steps.workers import SharedStream, read_streams, shared_streams
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._ambient import OTHER, OTHER_SEED, PINNED
from repro_audit.storage.facts import Facts, Json
from repro_audit.torch_internals import bind
from repro_audit.torch_internals.loaders import WORKER_LOOP

ID = "worker-seed"


def levels(facts: Facts) -> Levels | str:
    """Another state of the workers' ambient generators, after PyTorch has seeded them."""
    if not any(loader["num_workers"] for loader in facts.loaders):
        return facts.seen("no DataLoader with workers was iterated")
    return Levels(varied=(OTHER,), alone=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Reseed the ambient generators of each worker between PyTorch's seeding and the program's `worker_init_fn`."""
    with Replacements() as replacements:
        if level == OTHER:
            trial.when_imported("torch", lambda: _perturb_workers(replacements))
        yield


def _perturb_workers(replacements: Replacements) -> None:
    original = WORKER_LOOP.get()

    @functools.wraps(original)  # whoever stands in for it next asks for its signature
    def loop(*args: Any) -> None:
        bound = bind(original, *args)
        bound.arguments["init_fn"] = _reseeded(bound.arguments["init_fn"])
        original(*bound.args, **bound.kwargs)

    replacements.attribute(*WORKER_LOOP.spot(), loop)


def _reseeded(init_fn: Callable[[int], None] | None) -> Callable[[int], None]:
    def init(worker_id: int) -> None:
        seed = OTHER_SEED + worker_id
        random.seed(seed)
        sys.modules["torch"].manual_seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
        if init_fn is not None:
            init_fn(worker_id)

    return init


def survey(trial: TrialContext) -> Json:
    """The streams that two workers, or two epochs, had in common."""
    return [
        asdict(shared) for shared in shared_streams(read_streams(trial.directory / "workers.jsonl"))
    ]


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A shared stream is a defect, seen; a program that relies on PyTorch's own seeding of workers is none."""
    shared = [SharedStream(**record) for record in facts.survey.get(ID) or ()]
    if shared:
        return Verdict(
            status="broke",
            reason=f"{_in_words(shared[0])}, so what should be random repeats, by the number of workers",
            evidence=tuple(_in_words(stream) for stream in shared),
        )
    if judgement.status == "broke":
        return Verdict(
            status="delegated",
            reason="samples depend on the seeding that PyTorch does in each worker, and no two workers share a stream",
        )
    held = "no two workers share a stream, and another state at their start changes nothing"
    return Verdict(status=judgement.status, reason=judgement.note or held)


def _in_words(shared: SharedStream) -> str:
    (first_epoch, first_worker), (second_epoch, second_worker) = shared.first, shared.second
    if shared.kind == "epochs":
        return (
            f"epochs {first_epoch} and {second_epoch} of worker {first_worker} draw the same numbers from "
            f"{shared.generator}"
        )
    return (
        f"workers {first_worker} and {second_worker} draw the same numbers from {shared.generator}"
    )


def fix(facts: Facts) -> Fix:
    """Seed what is shared from the seed that PyTorch gives each worker."""
    shared = [SharedStream(**record) for record in facts.survey.get(ID) or ()]
    name = shared[0].generator if shared else "dataset.rng"
    if name.startswith("ambient "):
        reseed = {
            "python": "    random.seed(seed)\n",
            "numpy": "    np.random.seed(seed % 2**32)\n",
        }.get(name.removeprefix("ambient "), "    torch.manual_seed(seed)\n")
        return Fix(
            summary="Seed in worker_init_fn from the seed that PyTorch gives the worker, not from a constant: it "
            "differs by worker and by epoch.",
            snippet="def seed_worker(worker_id):\n"
            "    seed = torch.utils.data.get_worker_info().seed\n"
            f"{reseed}\n\n"
            "loader = DataLoader(dataset, num_workers=2, worker_init_fn=seed_worker)",
        )
    owner = name.removeprefix("dataset.")
    return Fix(
        summary=f"Make {name} anew in each worker, from the seed that PyTorch gives it: that seed differs by "
        "worker and by epoch.",
        snippet="def seed_worker(worker_id):\n"
        "    info = torch.utils.data.get_worker_info()\n"
        f"    info.dataset.{owner} = np.random.default_rng(info.seed)\n\n\n"
        "loader = DataLoader(dataset, num_workers=2, worker_init_fn=seed_worker)",
    )


SOURCE = Source(
    name=__name__,
    internals=(WORKER_LOOP,),
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
    names_cause=True,
)
