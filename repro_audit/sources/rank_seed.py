"""Ranks that shard the data draw the same random numbers.

## What it does
The audit compares the generators of the ranks of one run: Python's `random`, NumPy's global one, and PyTorch's. Where
two ranks read other samples, and yet their generators are in the same state step after step while they are drawn from,
they draw the same numbers. *Same*: no two ranks share a stream. *Not tried* where one process trains, or all
ranks read the same samples. A DistributedSampler whose `set_epoch` nobody calls is no such stream: it hands out the
same order in every epoch, and the report says so beside it.

## Why it breaks reproducibility
A script that runs once for each rank seeds each alike. The model has to begin alike, but noise, dropout and
augmentation that repeat on each rank are fewer numbers than they seem: with eight ranks, an eighth. What is trained
then hangs on the number of ranks in one more way.

## Example
Each rank adds the same noise to its own samples.

```python
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def work(rank, world):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29572")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    x = torch.randn(64, 8)[rank::world]
    model = DistributedDataParallel(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        noisy = x + 0.1 * torch.randn_like(x)
        (model(noisy) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(2,), nprocs=2)
```

## Use instead
The model begins alike; then each rank goes on with a seed of its own.

```python
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def work(rank, world):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29572")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    x = torch.randn(64, 8)[rank::world]
    model = DistributedDataParallel(nn.Linear(8, 1))
    torch.manual_seed(1 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        noisy = x + 0.1 * torch.randn_like(x)
        (model(noisy) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(2,), nprocs=2)
```

## References
- Lightning: `seed_everything`, and why ranks need seeds of their own:
  <https://lightning.ai/docs/fabric/stable/api/utilities.html>
- PyTorch: DistributedSampler and `set_epoch`:
  <https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler>
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.probe.files import relative
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Place, Scope, Source, Verdict
from repro_audit.sources._ranks import AS_IS, ONE_PROCESS, bits
from repro_audit.storage.facts import GENERATORS, Facts, Json
from repro_audit.storage.trace import Phase, Role, Trace

ID = "rank-seed"
_GENERATOR = "rng."
_RESEED = {
    "python": "random.seed(seed + rank)",
    "numpy": "np.random.seed(seed + rank)",
    "torch": "torch.manual_seed(seed + rank)",
}
_SAME_ORDER = (
    "told apart from it: set_epoch of a DistributedSampler is not called, so it hands out the same order "
    "in every epoch"
)
_FEWEST = 2
"""So many steps must have drawn from a generator: a loader that begins an epoch draws once."""


def levels(facts: Facts) -> Levels | str:
    """None: one run shows it."""
    if facts.ranks == 1:
        return ONE_PROCESS
    if not (facts.survey.get(ID) or {}).get("sharded"):
        return facts.seen("all ranks read the same samples")
    return Levels()


@contextmanager
def apply(_level: str, trial: TrialContext) -> Iterator[None]:
    """Note in which epoch each DistributedSampler believes to be, whenever it begins one."""
    epochs: list[int] = []
    trial.notes[ID] = epochs
    with Replacements() as replacements:
        trial.when_imported("torch", lambda: _watch(epochs, replacements))
        yield


def _watch(epochs: list[int], replacements: Replacements) -> None:
    sampler: Any = sys.modules["torch"].utils.data.distributed.DistributedSampler
    begin = sampler.__iter__

    @functools.wraps(begin)
    def iterate(self: Any) -> Any:
        if self.shuffle:
            epochs.append(self.epoch)
        return begin(self)

    replacements.attribute(sampler, "__iter__", iterate)


def survey(trial: TrialContext) -> Json:
    """What a rank tells of itself."""
    epochs = trial.notes.get(ID) or []
    seedings = [(library, relative(file), line) for library, file, line in trial.seedings if file]
    return {"same_epoch": len(epochs) > 1 and len({*epochs}) == 1, "seedings": seedings}


def survey_of_ranks(traces: Sequence[Trace], found: Sequence[Json]) -> Json:
    """Which generators two ranks had in common, step by step."""
    shared = [
        {"library": library, "ranks": [0, rank]}
        for library in GENERATORS
        for rank in range(1, len(traces))
        if _share(traces[0], traces[rank], f"{_GENERATOR}{library}")
    ]
    return {
        "sharded": any(_read_other_samples(traces[0], trace) for trace in traces[1:]),
        "shared": shared,
        "seedings": (found[0] or {}).get("seedings", []),
        "same_epoch": any(each and each["same_epoch"] for each in found),
    }


def _states(trace: Trace, name: str) -> dict[int, bytes]:
    """By step, the state of a generator, with the batch or at the step's end."""
    return {
        step: digest
        for phase in (Phase.OPTIMIZER, Phase.DATA)
        for (step, each), digest in bits(trace, phase, name, role=Role.CONTEXT).items()
        if each == name
    }


def _share(first: Trace, second: Trace, name: str) -> bool:
    """Whether two ranks had a generator in the same states throughout, and drew from it."""
    mine, theirs = _states(first, name), _states(second, name)
    moved = sum(mine[before] != mine[after] for before, after in pairwise(sorted(mine)))
    return bool(mine) and mine == theirs and moved >= _FEWEST


def _read_other_samples(first: Trace, second: Trace) -> bool:
    """Whether two ranks had other batches, or, without a loader, other losses."""
    for phase, prefix in ((Phase.DATA, ""), (Phase.FORWARD, "loss")):
        mine, theirs = (bits(trace, phase, prefix, role=Role.OUTCOME) for trace in (first, second))
        if mine and theirs:
            return any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys())
    return False


def judge(_judgement: Judgement, facts: Facts) -> Verdict:
    """A shared stream is a defect, seen in one run."""
    found = facts.survey.get(ID) or {}
    notes = (_SAME_ORDER,) if found.get("same_epoch") else ()
    shared = found.get("shared") or []
    if not shared:
        reason = f"no two of the {facts.ranks} ranks draw the same random numbers"
        return Verdict(status="held", reason="; ".join((reason, *notes)), seen=True)
    return Verdict(
        status="broke",
        reason=f"{_in_words(shared[0])}, though they read other samples",
        evidence=(*map(_in_words, shared[1:]), *notes),
        seen=True,
    )


def _in_words(shared: Json) -> str:
    first, second = shared["ranks"]
    return f"ranks {first} and {second} draw the same numbers from {GENERATORS[shared['library']]}"


def places(facts: Facts) -> tuple[Place, ...]:
    """The line that seeded the generator last."""
    found = facts.survey.get(ID) or {}
    shared = found.get("shared") or []
    lines = [
        (file, line)
        for library, file, line in found.get("seedings", ())
        if shared and library == shared[0]["library"]
    ]
    if not lines:
        return ()
    file, line = lines[-1]
    return (
        Place(
            what="it seeds each rank alike",
            file=file,
            line=line,
            step=0,
            phase=Phase.DATA.label,
            name=f"rank{shared[0]['ranks'][1]}.{_GENERATOR}{shared[0]['library']}",
            within="as on rank 0 of the same run",
        ),
    )


def fix(facts: Facts) -> Fix:
    """Add the rank to the seed."""
    shared = (facts.survey.get(ID) or {}).get("shared") or []
    library = shared[0]["library"] if shared else "torch"
    return Fix(
        summary="Seed each rank with a number of its own once the model is there, which has to begin alike.",
        snippet=f"rank = torch.distributed.get_rank()\n{_RESEED[library]}",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=AS_IS,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    places=places,
    names_cause=True,
    survey=survey,
    survey_of_ranks=survey_of_ranks,
)
