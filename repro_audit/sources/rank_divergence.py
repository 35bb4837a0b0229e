"""Ranks that should hold the same parameters hold others.

## What it does
The audit compares the ranks of one run with each other, step by step: of what DistributedDataParallel holds, and of
parameters whose gradients the ranks have averaged, each rank must have the same gradient and the same parameter after
each step. Where two differ, one more run notes each write to a parameter with its line, and the first write that only
one rank made, or that left another value there, is to blame. *Same*: all ranks had the same parameters after each
step. *Not tried* where one process trains, or the ranks share no gradients.

## Why it breaks reproducibility
Data parallelism averages gradients, not parameters: it rests on all ranks beginning alike and doing the same. What one
rank does otherwise (a branch on the rank, a learning rate of its own, a backward past DDP) stays, and each gradient
from then on is the average of other models' gradients. No error shows it, the checkpoint holds the first rank's model
alone, and the result hangs on the number of ranks.

## Example
The last rank shrinks its weights, and no other one does.

```python
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def work(rank, world):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29571")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    x = torch.randn(64, 8)[rank::world]
    model = DistributedDataParallel(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if rank == world - 1:
            with torch.no_grad():
                model.module.weight.mul_(0.99)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(2,), nprocs=2)
```

## Use instead
Every rank does the same to the parameters; only the data are a rank's own.

```python
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def work(rank, world):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29571")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    x = torch.randn(64, 8)[rank::world]
    model = DistributedDataParallel(nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            model.module.weight.mul_(0.99)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(2,), nprocs=2)
```

## References
- PyTorch: Distributed Data Parallel, internal design:
  <https://docs.pytorch.org/docs/stable/notes/ddp.html#internal-design>
- PyTorch: DistributedDataParallel, on changing parameters after it was made:
  <https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html>
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.probe.files import relative
from repro_audit.source import Fix, Levels, Place, Scope, Source, Verdict
from repro_audit.sources._ranks import AS_IS, ONE_PROCESS, bits
from repro_audit.storage.facts import Facts, Json
from repro_audit.storage.trace import Phase, Role, Trace
from repro_audit.torch_internals.operators import DISPATCH_MODE, SCHEMA

ID = "rank-divergence"
WATCHED = "each write to a parameter noted"
_GRADIENT, _PARAMETER = "grad.", "param."
_WRAPPED = "module."
"""What DistributedDataParallel puts before a parameter's name."""


def levels(facts: Facts) -> Levels | str:
    """One more run, where ranks differ, that tells the line."""
    found = facts.survey.get(ID) or {}
    if facts.ranks == 1:
        return ONE_PROCESS
    if not found.get("shared"):
        return facts.seen("the ranks were not seen to share gradients")
    return Levels(varied=(WATCHED,), alone=True) if found["parted"] else Levels()


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Note whether DistributedDataParallel runs and, to find the line, each write to a parameter."""
    notes: dict[str, Json] = {"wrapped": False, "written": {}}
    trial.notes[ID] = notes

    def met(module: Any) -> None:
        notes["wrapped"] |= type(module).__name__ == "DistributedDataParallel"

    trial.on_met.append(met)
    if level == WATCHED:
        trial.when_imported("torch", lambda: _watch(trial, notes))
    yield


def _watch(trial: TrialContext, notes: dict[str, Json]) -> None:
    from repro_audit.probe.parameter_writes import ParameterWrites

    writes = ParameterWrites()
    notes["written"] = writes.written
    trial.on_met.append(writes.know)
    writes.__enter__()  # until the process ends: the program's own code runs inside of it


def survey(trial: TrialContext) -> Json:
    """What a rank saw."""
    return trial.notes.get(ID)


def survey_of_ranks(traces: Sequence[Trace], found: Sequence[Json]) -> Json:
    """Whether ranks share gradients, and where they first part; of a watched run, by which write."""
    gradients = [bits(trace, Phase.BACKWARD, _GRADIENT, role=Role.OUTCOME) for trace in traces]
    parameters = [bits(trace, Phase.OPTIMIZER, _PARAMETER, role=Role.OUTCOME) for trace in traces]
    shared = _shared(gradients, wrapped=all(each and each["wrapped"] for each in found))
    parted = _parted(gradients, parameters, shared)
    write = None
    if parted is not None:
        first, second = ((found[rank] or {}).get("written", {}) for rank in parted["ranks"])
        write = _write(first.get(parted["name"], ()), second.get(parted["name"], ()))
    return {"shared": len(shared), "parted": parted, "write": write}


def _shared(gradients: Sequence[Mapping[tuple[int, str], bytes]], *, wrapped: bool) -> set[str]:
    """Parameters whose gradients all ranks have in common from the first step on, or that DDP holds."""
    first, *others = gradients
    names = set.intersection(
        *({name.removeprefix(_GRADIENT) for _, name in each} for each in gradients)
    )
    began = min((step for step, _ in first), default=0)
    return {
        name
        for name in names
        if (wrapped and _WRAPPED in f"{name}.")
        or all(
            other.get((began, _GRADIENT + name)) == first.get((began, _GRADIENT + name))
            for other in others
        )
    }


def _parted(
    gradients: Sequence[Mapping[tuple[int, str], bytes]],
    parameters: Sequence[Mapping[tuple[int, str], bytes]],
    shared: set[str],
) -> Json:
    """The first step after which two ranks differ in what they share, and which; None where none does."""
    steps = sorted({step for step, _ in (*gradients[0], *parameters[0])})
    for step in steps:
        for phase, prefix, ranks in (
            (Phase.BACKWARD, _GRADIENT, gradients),
            (Phase.OPTIMIZER, _PARAMETER, parameters),
        ):
            here = [name.removeprefix(prefix) for at, name in ranks[0] if at == step]
            for name in filter(shared.__contains__, here):
                values = [rank.get((step, prefix + name)) for rank in ranks]
                other = next((n for n, value in enumerate(values) if value != values[0]), None)
                if other is not None:
                    return {
                        "step": step,
                        "phase": phase.label,
                        "name": name,
                        "ranks": [0, other],
                    }
    return None


def _write(first: Sequence[Json], second: Sequence[Json]) -> Json:
    """The first write that one of two ranks made and the other did not, or that left other values."""
    for place, (mine, theirs) in enumerate(zip_longest(first, second)):
        if mine == theirs:
            continue
        alike = mine is not None and theirs is not None and mine[:2] == theirs[:2]
        # What the other rank did next tells which of both is one too many.
        following = first[place + 1][:2] if place + 1 < len(first) else None
        second_alone = mine is None or (
            theirs is not None and (following is None or following != theirs[:2])
        )
        file, line, _ = theirs if second_alone else mine
        return {"file": relative(file), "line": line, "alike": alike, "second": second_alone}
    return None


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """What differs is a defect, seen in one run."""
    found = facts.survey.get(ID) or {}
    parted = found.get("parted")
    if parted is None:
        return Verdict(
            status="held",
            reason=f"all {facts.ranks} ranks held the same {found.get('shared', 0)} parameters after each step",
            seen=True,
        )
    first, second = parted["ranks"]
    what = "gradients" if parted["phase"] == Phase.BACKWARD.label else "parameters"
    instead = (
        "though DistributedDataParallel or the program averages them"
        if what == "gradients"
        else "though the gradients of the step are the same"
    )
    return Verdict(
        status="broke",
        reason=f"after step {parted['step']} ranks {first} and {second} hold other {what} at {parted['name']}, "
        + instead,
        seen=True,
    )


def places(facts: Facts) -> tuple[Place, ...]:
    """The line of the first write that one rank alone made."""
    found = facts.survey.get(ID) or {}
    parted, write = found.get("parted"), (facts.varied or {}).get("write")
    if parted is None or not write or not write["file"] or parted["phase"] == Phase.BACKWARD.label:
        return ()
    first, second = parted["ranks"]
    rank = second if write["second"] else first
    what = (
        f"it leaves another {parted['name']} on rank {second} than on rank {first}"
        if write["alike"]
        else f"rank {rank} writes to {parted['name']} here, and rank {first + second - rank} does not"
    )
    return (
        Place(
            what=what,
            file=write["file"],
            line=write["line"],
            step=parted["step"],
            phase=parted["phase"],
            name=f"rank{second}.{_PARAMETER}{parted['name']}",
            within=f"not as on rank {first} of the same run",
        ),
    )


def fix(facts: Facts) -> Fix:
    """Do the same on every rank."""
    parted = (facts.survey.get(ID) or {}).get("parted") or {}
    if parted.get("phase") == Phase.BACKWARD.label:
        return Fix(
            summary="Call the wrapped model, not its .module, where gradients are wanted: only DDP's own forward has "
            "the backward average them.",
            snippet="loss = loss_fn(ddp_model(batch), target)\nloss.backward()",
        )
    return Fix(
        summary="Change parameters on every rank in the same way, or send the first rank's to the others.",
        snippet="for parameter in model.parameters():\n    torch.distributed.broadcast(parameter.data, src=0)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=AS_IS,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    places=places,
    names_cause=True,
    survey=survey,
    survey_of_ranks=survey_of_ranks,
    internals=(DISPATCH_MODE, SCHEMA),
)
