"""Workers that begin as new interpreters do not find what the main process had set.

## What it does
The audit starts the workers of each DataLoader by the program's own method (pinned), then by the others of `fork`,
`spawn` and `forkserver`, for the loader's first epoch. Another result convicts it. A method under which the program
does not run (a dataset that can not be pickled, say) convicts nothing: the report names it. It breaks the promise
`settings`; Python 3.14 has changed the default on Linux from `fork` to `forkserver`, as it is on no two systems alike.
*Same*: all methods that the program runs under give the same. *Not tried* where no DataLoader with workers was
iterated, nor for a notebook whose workers can only be forked.

## Why it breaks reproducibility
A forked worker is a copy of the main process. One that is spawned imports the program's modules anew and is sent the
dataset, pickled. So what `build` or `main` had put into a module, a class attribute, a default dtype or a registry is
not there, nor is what an object leaves out of its pickled state; the worker goes on with what the import gives.

## Example
A constant that is computed at the start is a global of the module.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

scale = 1.0


class Scaled(Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] / scale
        return x, x.sum(0, keepdim=True)


def build(seed):
    global scale
    torch.manual_seed(seed)
    x = 3 * torch.randn(64, 8)
    scale = x.std().item()
    return nn.Linear(8, 1), DataLoader(
        Scaled(x), batch_size=8, num_workers=1
    )
```

## Use instead
The dataset holds what its samples depend on.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Scaled(Dataset):
    def __init__(self, x, scale):
        self.x, self.scale = x, scale

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] / self.scale
        return x, x.sum(0, keepdim=True)


def build(seed):
    torch.manual_seed(seed)
    x = 3 * torch.randn(64, 8)
    data = Scaled(x, x.std().item())
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, num_workers=1)
```

## References
- Python: contexts and start methods:
  <https://docs.python.org/3/library/multiprocessing.html#contexts-and-start-methods>
- Python: the spawn and forkserver start methods, on global variables:
  <https://docs.python.org/3/library/multiprocessing.html#the-spawn-and-forkserver-start-methods>
- PyTorch: platform-specific behaviors of workers:
  <https://docs.pytorch.org/docs/stable/data.html#platform-specific-behaviors>
"""

from __future__ import annotations

import multiprocessing
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts, Json
from repro_audit.torch_internals.loaders import START_METHOD, WORKERS_BEGIN

ID = "worker-start-method"
PINNED = "as written"
METHODS = ("fork", "spawn", "forkserver")


def levels(facts: Facts) -> Levels | str:
    """The methods that this system has, without the one that all of the program's loaders use."""
    if not any(loader["num_workers"] for loader in facts.loaders):
        return facts.seen("no DataLoader with workers was iterated")
    own = set(facts.survey.get(ID) or ("fork",))
    here = multiprocessing.get_all_start_methods()
    # Alone: another source may take the workers away.
    return Levels(
        varied=tuple(each for each in METHODS if each in here and own != {each}), alone=True
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Note the program's own method, or start workers by the level's."""
    with Replacements() as replacements:
        trial.when_imported("torch", lambda: _start_by(level, trial, replacements))
        yield


def _start_by(level: str, trial: TrialContext, replacements: Replacements) -> None:
    own: set[str] = trial.notes.setdefault(ID, set())
    begin = WORKERS_BEGIN.get()
    begun: weakref.WeakSet[Any] = weakref.WeakSet()

    def __init__(iterator: Any, loader: Any) -> None:  # noqa: N807 - stands for one
        context = loader.multiprocessing_context
        own.add((context or multiprocessing).get_start_method())
        # An interpreter for each worker takes seconds, so one epoch has to do.
        if level == PINNED or loader in begun:
            begin(iterator, loader=loader)
            return
        begun.add(loader)
        loader.__dict__[START_METHOD.name] = _context(level)
        try:
            begin(iterator, loader=loader)
        finally:
            loader.__dict__[START_METHOD.name] = context

    replacements.attribute(*WORKERS_BEGIN.spot(), __init__)


def _context(method: str) -> Any:
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        # Workers fork from a server that has imported torch, rather than import it once each.
        context.set_forkserver_preload(["torch"])
    return context


def survey(trial: TrialContext) -> Json:
    """The methods that the program uses of its own."""
    return sorted(trial.notes.get(ID, ()))


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A method that the program can't run under is named, and convicts nothing."""
    own = " and ".join(facts.survey.get(ID) or ("fork",))
    ran = [level.level for level in judgement.levels if level.status == "ok"]
    failed = [level.level for level in judgement.levels if level.status not in ("ok", "untested")]
    unable = f"; the program does not run with {' or '.join(failed)}" if failed else ""
    if judgement.status == "broke":
        apart = " and ".join(level.level for level in judgement.levels if level.diverged)
        return Verdict(
            status="broke",
            reason=f"workers started by {apart} make other samples than by {own}{unable}",
        )
    if judgement.status == "held" or (judgement.status == "error" and ran):
        held = f"workers started by {', '.join((own, *ran))} make the same samples{unable}"
        return Verdict(status="held", reason=judgement.note or held)
    if judgement.status == "error" and facts.notebook:
        alone = "what the cells of a notebook define is known to forked workers alone"
        return Verdict(status="not-exercised", reason=f"{alone}{unable}")
    return Verdict(status=judgement.status, reason=judgement.note or "")


def fix(_facts: Facts) -> Fix:
    """Send along what samples depend on."""
    return Fix(
        summary="Keep what samples depend on in the dataset, or set it in worker_init_fn: a worker that is spawned "
        "imports the modules anew and gets nothing else from the main process. Or fix the method.",
        snippet="data = Scaled(x, scale)  # not a global that build() sets\n"
        'loader = DataLoader(data, num_workers=2, multiprocessing_context="spawn")',
    )


SOURCE = Source(
    name=__name__,
    internals=(WORKERS_BEGIN, START_METHOD),
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
    survey=survey,
)
