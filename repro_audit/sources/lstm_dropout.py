"""The dropout of an RNN under cuDNN has a state that no generator shows.

## What it does
The audit runs the program twice in one process, with every generator put back in between, and compares the second run
with one in a fresh process (the level of `process-reuse`). Where they differ, both are repeated with the dropout of
every `nn.LSTM`, `nn.GRU` and `nn.RNN` taken out, and of classes derived from them: if they then agree, that dropout is
convicted. *Same*: on a CUDA device, or where such a class has a `forward` of its own, both runs give the same. *Not
tried* where no such module with dropout between its layers ran, nor with PyTorch's own `forward` and no CUDA
device: kernels for CPUs draw from PyTorch's generator and keep nothing.

## Why it breaks reproducibility
On a CUDA device cuDNN draws this dropout, from a random state that PyTorch keeps for it, one a device, and seeds from
the device's generator. Before PyTorch 2.0 it was seeded once a process, and seeding again did not reach it: a script
repeated, the second training in one process did not. Since 2.0, setting a device's generator, by seed or by state,
has it seeded anew at the next forward pass. But it is still no part of what `torch.cuda.get_rng_state()` returns: a
run that goes on from a saved state draws other masks than the one that saved it.

## Example
The second run restores the state in which the first one began to train, which should change nothing. It shows on
CUDA; on a CPU both runs agree.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"
generator = torch.cuda if device == "cuda" else torch
checkpoint = {}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(
            4, 8, num_layers=2, dropout=0.5, batch_first=True
        )
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def build(seed):
    torch.manual_seed(seed)
    model = Model().to(device)
    x = torch.randn(64, 5, 4).to(device)
    model(x)  # a first pass, to warm up
    # a later run in this process starts training where the first one did
    if checkpoint:
        generator.set_rng_state(checkpoint["rng"])
    checkpoint["rng"] = generator.get_rng_state()
    return model, DataLoader(
        TensorDataset(x, x.sum((1, 2))[:, None]), batch_size=8
    )
```

## Use instead
`nn.Dropout` between the layers draws from the device's generator alone.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"
generator = torch.cuda if device == "cuda" else torch
checkpoint = {}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lower = nn.LSTM(4, 8, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.upper = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        hidden = self.drop(self.lower(x)[0])
        return self.head(self.upper(hidden)[0][:, -1])


def build(seed):
    torch.manual_seed(seed)
    model = Model().to(device)
    x = torch.randn(64, 5, 4).to(device)
    model(x)  # a first pass, to warm up
    # a later run in this process starts training where the first one did
    if checkpoint:
        generator.set_rng_state(checkpoint["rng"])
    checkpoint["rng"] = generator.get_rng_state()
    return model, DataLoader(
        TensorDataset(x, x.sum((1, 2))[:, None]), batch_size=8
    )
```

## References
- The cached dropout state is not refreshed by seeding: <https://github.com/pytorch/pytorch/issues/74177>
- The change that refreshes it: <https://github.com/pytorch/pytorch/pull/90522>
- A training that repeats across runs of the script, not within one: <https://github.com/pytorch/pytorch/issues/62096>
- The same in a few lines: <https://github.com/pytorch/pytorch/issues/90168>
- Saved and restored generator states do not restore the dropout: <https://github.com/pytorch/pytorch/issues/104697>
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import process_reuse
from repro_audit.storage.facts import Facts, Json

PINNED, OFF = "as built", "dropout off"
ID = "lstm-dropout"


def survey(trial: TrialContext) -> Json:
    """The classes of the recurrent modules that ran with dropout: whether each has a `forward` of its own, by name."""
    return dict(trial.notes.get(ID, {}))


def levels(facts: Facts) -> Levels | str:
    """Carried by the second run in one process; removal convicts."""
    if not facts.survey.get(ID):
        return facts.seen("no nn.LSTM, nn.GRU or nn.RNN with dropout ran")
    return Levels(judged_by=(process_reuse.SOURCE.id, process_reuse.SECOND), removal=OFF)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Note the modules with dropout as they run, or take their dropout out."""
    with Replacements() as replacements:
        trial.when_imported("torch", lambda: _watch(level, trial, replacements))
        yield


def _watch(level: str, trial: TrialContext, replacements: Replacements) -> None:
    nn = sys.modules["torch"].nn
    forward = {cls: cls.forward for cls in (nn.LSTM, nn.GRU, nn.RNN)}
    seen: dict[str, bool] = {}
    trial.notes[ID] = seen

    def look(module: Any) -> None:
        own = type(module).forward not in patched.values()
        if module.dropout and (own or module.num_layers > 1):
            seen[type(module).__name__] = own
        if level == OFF:
            module.dropout = 0.0

    def looking(cls: Any) -> Any:
        def run(module: Any, /, *args: Any, **kwargs: Any) -> Any:
            look(module)
            return forward[cls](module, *args, **kwargs)

        return run

    def call(module: Any, /, *args: Any, **kwargs: Any) -> Any:
        look(module)
        return nn.Module.__call__(module, *args, **kwargs)

    patched = {cls: looking(cls) for cls in forward}
    for cls, run in patched.items():
        replacements.attribute(cls, "forward", run)
    # Before the `forward` of a class that derives from one of them, and may never call theirs.
    replacements.attribute(nn.RNNBase, "__call__", call)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say what was shown, and what only a device with cuDNN can show."""
    own = any((facts.survey.get(ID) or {}).values())
    if judgement.status == "held" and not facts.cuda and not own:
        return Verdict(
            status="not-exercised",
            reason=f"{facts.no_cuda}: a reseeded second run agreed, but on CPU kernels, which keep no dropout state",
        )
    return Verdict.of(
        judgement,
        held="a reseeded second run in the same process gives the same",
        broke="a reseeded second run in the same process differs, and agrees once the dropout is taken out",
    )


def fix(_facts: Facts) -> Fix:
    """Take the dropout out of the RNN."""
    return Fix(
        summary="Put the dropout outside the RNN: nn.Dropout draws from the generator that seeding resets.",
        snippet="self.first = nn.LSTM(width, hidden, batch_first=True)\n"
        "self.second = nn.LSTM(hidden, hidden, batch_first=True)\n"
        "self.drop = nn.Dropout(p)  # between the two, in forward()",
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
)
