"""State that outlives a training run in its process changes the next run there.

## What it does
The audit runs the program in a fresh process (pinned), and twice in one process, with every ambient generator put
back in between as a caller that seeds would; the second run is compared. One that the program seeds when it is
imported, and not in a run, is not put back: nobody imports it again. A difference convicts it. It breaks the promise
`settings`: one run a process may still repeat. *Same*: both give the same.

## Why it breaks reproducibility
A module's top level runs once a process, and what it makes lives on: generators, counters, caches, lists that runs
append to. So do default arguments, attributes of classes, and state inside libraries. Seeding resets the ambient
generators and nothing else, so the second training in a notebook, in a sweep or in a test begins where the first one
stopped. Where the seeds are set at the top of the module, even the ambient generators go on.

## Example
The loader's generator is made when the module is imported, and is not at its start when `build` runs again.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

generator = torch.Generator().manual_seed(0)  # lives as long as the process


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(
        data, batch_size=8, shuffle=True, generator=generator
    )
```

## Use instead
Make it in `build`.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    # lives as long as this run
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(
        data, batch_size=8, shuffle=True, generator=generator
    )
```

## References
- Python: a module is run at its first import only: <https://docs.python.org/3/tutorial/modules.html#more-on-modules>
- `torch.Generator`: <https://docs.pytorch.org/docs/stable/generated/torch.Generator.html>
- A training that repeats across processes, not within one: <https://github.com/pytorch/pytorch/issues/62096>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import artifact_cache
from repro_audit.storage.facts import Facts, Json

PINNED, SECOND = "fresh process", "second run"


def levels(facts: Facts) -> Levels | str:
    """The second of two runs in one process, with every generator put back in between."""
    if facts.runs_once:
        return "a script runs once in its process"
    return Levels(varied=(SECOND,))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Have the program run twice in this process; the second run is traced."""
    if level == SECOND:
        trial.runs = 2
    yield


def survey(trial: TrialContext) -> Json:
    """The ambient generators that are seeded only as the program is imported."""
    return trial.seeded_at_import


_CALLS = {
    "python": "random.seed(seed)",
    "numpy": "np.random.seed(seed)",
    "torch": "torch.manual_seed(seed)",
    "cuda": "torch.cuda.manual_seed_all(seed)",
}
_LIBRARIES = {"python": "random", "numpy": "NumPy", "torch": "PyTorch", "cuda": "CUDA"}


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say what was put back between the two runs, and what was not."""
    seeded = [_LIBRARIES[library] for library in facts.survey.get(SOURCE.id) or ()]
    why = (
        f": the program seeds {' and '.join(seeded)} when it is imported, and not again for each run"
        if seeded
        else ", though every ambient generator was put back"
    )
    return Verdict.of(
        judgement,
        held="a second run in the same process, reseeded, gives the same",
        broke=f"a second run in the same process differs{why}",
    )


def fix(facts: Facts) -> Fix:
    """Seed in build(); make the state there, or reset it."""
    calls = [_CALLS[library] for library in facts.survey.get(SOURCE.id) or ()]
    if calls:
        return Fix(
            summary="Seed inside build(), so that each run begins with it: the top of a module runs only when it is "
            "imported, once a process.",
            snippet="\n    ".join(("def build(seed=0):", *calls)),
        )
    return Fix(
        summary="Make all state inside build(), or reset it there: module-level generators, counters and caches, "
        "and default arguments, live as long as the process. Otherwise start a new process for each run.",
        snippet="def build():\n"
        "    generator = torch.Generator().manual_seed(0)  # not at module level\n"
        "    cache.clear()",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
    yields_to=(
        artifact_cache.SOURCE.id,
        "a second run in the same process differs just as one that finds the first run's files",
    ),
)
