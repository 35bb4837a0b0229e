"""The seed does not reach the result, or not all of it.

## What it does
The audit gives `build`, and every ambient generator, its seed (A) and the next one (B). This is a yardstick, and
breaks no promise: the result should change. *Unexpected* is that `build` takes a seed and another one changes nothing.
*Expected*: the result changes, or the program takes no seed and sets its own, or draws nothing that a seed reaches.

## Why it breaks reproducibility
A result that is the same under every seed looks perfectly reproducible, and tells nothing about how much chance there
is in it: five runs with five seeds are one run. Most often a number is set in the code, or the seed is dropped on its
way (`if seed:` drops 0).

## Example
The seed is taken and forgotten.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(42)  # and what became of seed?
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## Use instead
Seed with what was given.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## References
- PyTorch: Reproducibility, random number generator:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#pytorch-random-number-generator>
- A seed of 0 that was ignored: <https://github.com/ThilinaRajapakse/simpletransformers/issues/1477>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts, Json
from repro_audit.storage.trace import Phase, Trace

PINNED = "A"
SEEDS = "ABCD"
"""The audit's seed and the following ones; the last two serve as a yardstick for what broke."""
_ARGUMENT, _AMBIENT = ", as the argument of build()", ", in every generator"
ARGUMENT, AMBIENT = f"B{_ARGUMENT}", f"B{_AMBIENT}"


def levels(facts: Facts) -> Levels:
    """The next seed, which is expected to change the trace, in the way in which the program is given its seed."""
    return Levels(varied=(ARGUMENT if facts.accepts_seed else AMBIENT,), alone=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Give the next seed to build(), or to every ambient generator."""
    further = SEEDS.index(level[0])
    if level.endswith(_ARGUMENT):
        trial.seed += further
    else:
        trial.seeds.update({library: seed + further for library, seed in trial.seeds.items()})
    yield


def further(level: str) -> tuple[str, ...]:
    """The levels for more seeds, given in the way of a level that was tried."""
    return tuple(f"{seed}{level[1:]}" for seed in SEEDS[2:])


def unmoved(first: Trace, other: Trace) -> Json:
    """The initial parameters that another seed did not move."""
    after = {row.name: row.digest for row in other.rows(phase=Phase.INIT)}
    return [row.name for row in first.rows(phase=Phase.INIT) if after.get(row.name) == row.digest]


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A result that moves with the seed is what one wants; a seed that is taken and ignored is not."""
    if judgement.status == "broke":
        return Verdict(status="held", reason="another seed gives another result, as it should")
    if judgement.status != "held":
        return Verdict(status=judgement.status, reason=judgement.note or "")
    if facts.accepts_seed:
        return Verdict(
            status="broke", reason="build() takes a seed, but another seed changes nothing"
        )
    if facts.reseeds:
        return Verdict(
            status="held", reason="the program sets its own seed, so the audit's changes nothing"
        )
    return Verdict(status="held", reason="the program draws no random numbers that a seed reaches")


def fix(_facts: Facts) -> Fix:
    """Use the seed."""
    return Fix(
        summary="Seed every generator with the seed that build() is given.",
        snippet="from repro_audit.rng import seed_everything\n\n\n"
        "def build(seed):\n    seed_everything(seed)\n    ...",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.NONE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey_of_pair=unmoved,
    more_seeds=further,
)
