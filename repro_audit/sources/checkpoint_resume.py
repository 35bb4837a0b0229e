"""State that no checkpoint holds is lost when a training is resumed.

## What it does
The audit trains straight through (pinned), and in two processes: the first one saves where an epoch ends, the second
one builds everything anew, loads, and trains the remaining steps. Saved is what a careful program saves: everything
that has a `state_dict` (model, optimizer, scheduler, a loader that has one), every ambient generator, and the generator
that a DataLoader was given. A difference after that convicts it, and the report names what was not as before right
after loading. It breaks the promise `settings`. *Held*: both give the same. *Not exercised* where `build()` returns a
procedure, which the audit can not stop and resume.

## Why it breaks reproducibility
A `state_dict` holds parameters and the buffers that were registered as persistent. A counter, a list, a running mean
kept as a plain attribute is not in it; neither is the state of a scheduler that was written by hand, of a generator
that the dataset owns, or the place of a loader that is read only once. The resumed training starts those anew and goes
on with the rest, so it is neither the old run nor a new one.

## Example
The model warms up by a counter of its own, which begins at 0 again.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * min(1.0, self.calls / 100)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    return Gated(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True
    )
```

## Use instead
A buffer, which is part of the `state_dict`.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (self.calls / 100).clamp(max=1.0)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    return Gated(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True
    )
```

## References
- PyTorch: Saving and loading a general checkpoint:
  <https://docs.pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html>
- `torch.nn.Module.register_buffer`, persistent or not:
  <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.register_buffer>
- `torch.nn.Module.get_extra_state`, for what is no tensor:
  <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.get_extra_state>
- A loader that saves its place: <https://docs.pytorch.org/data/main/torchdata.stateful_dataloader.html>
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, Verdict

if TYPE_CHECKING:
    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts, Json
    from repro_audit.trial.context import TrialContext

PINNED, RESUMED = "straight through", "resumed in a new process"
KINDS = {
    "attribute": "a plain attribute",
    "buffer": "a buffer that is not persistent",
    "generator": "a generator of the program's own",
    "position": "the loader's position",
    "scheduler": "a scheduler without a state_dict",
}
MOST_NAMED = 4
WIDEST = 76


def levels(facts: Facts) -> Levels | str:
    """A checkpoint between two epochs, where the audit's own loop trains and comes to one."""
    found = facts.survey.get(SOURCE.id)
    if found is None or found["procedure"]:
        return "the program trains by itself, so the audit can not stop it half way and resume"
    if found["steps"] is None:
        return facts.seen("no epoch ended where a training could be resumed")
    return Levels(varied=(RESUMED,))


def survey(trial: TrialContext) -> Json:
    """Where the training can be cut, and what was lost where it was."""
    return trial.checkpoint.told()


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name what was lost."""
    found = facts.survey.get(SOURCE.id) or {}
    after = f"resumed after step {found.get('steps')} in a new process"
    if judgement.status == "held":
        return Verdict(
            status="held", reason=judgement.note or f"{after}, the training goes on just the same"
        )
    if judgement.status != "broke":
        return Verdict(status=judgement.status, reason=judgement.note or "")
    lost = _lost(facts)
    if not lost:
        reason = "what was lost can not be seen from outside: the state of an iterator, a worker or a library"
        return Verdict(status="broke", reason=f"{after}, the training goes on otherwise; {reason}")
    shown = [f"{name} ({KINDS[kind]})" for name, kind in lost[:MOST_NAMED]]
    more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
    return Verdict(
        status="broke",
        reason=f"{after}, the training goes on without {', '.join(shown)}{more}",
    )


def _lost(facts: Facts) -> list[tuple[str, str]]:
    """What the resumed run found otherwise than it was saved."""
    return [(name, kind) for name, kind in (facts.diverged or {}).get("lost", ())]


def fix(facts: Facts) -> Fix:
    """Save and load what was lost."""
    lost = dict(_lost(facts))
    lines = [line for name, kind in lost.items() if len(line := _saving(name, kind)) <= WIDEST]
    kept = "\n".join(lines[:MOST_NAMED])
    summary = "Save what was lost beside the state_dicts, and put it back after loading."
    if set(lost.values()) == {"buffer"}:
        summary = "Register the buffer as persistent, so that the state_dict holds it."
    elif set(lost.values()) == {"position"}:
        summary = "Use a loader that saves its place, such as torchdata's StatefulDataLoader, or save it yourself."
    return Fix(summary=summary, snippet=kept or _GENERAL)


_GENERAL = """\
def get_extra_state(self):  # of the module: part of its state_dict
    return {"calls": self.calls}

def set_extra_state(self, state):
    self.calls = state["calls"]"""


def _saving(name: str, kind: str) -> str:
    """A line that saves one thing; too wide a one where the name is no expression."""
    *owner, last = name.split(".")
    if kind == "buffer":
        return f'self.register_buffer("{last}", ...)  # without persistent=False'
    if kind == "position" or not owner or not all(part.isidentifier() for part in (*owner, last)):
        return " " * (WIDEST + 1)
    return f'checkpoint["{name}"] = copy.deepcopy({name})'


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    judge=judge,
    fix=fix,
    survey=survey,
)
